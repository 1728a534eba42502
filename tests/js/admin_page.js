// The stock page in a real browser, served by imks: an operator signs in, looks around, and disconnects somebody.
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { answer, connect, env, tell } from "./client.js";

const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"];
const DEVELOPMENT = env("MODE") === "development";
const url = env("URL");

async function sign_in(page, password) {
  await page.getByLabel("Server URL").fill(url);
  await page.getByLabel("Username").fill(env("USERNAME"));
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Connect" }).click();
}

// What the page says of itself.
const shows = (page, text) => page.getByText(text).first().waitFor();

async function look_at_a_socket(page, anna) {
  await page.getByRole("link", { name: "Sockets" }).click();
  await shows(page, anna.id);
  await page.getByText(anna.id).first().click();
  await shows(page, "WebSocket");
  await shows(page, "Initial HTTP request");
  assert.ok(!(await page.content()).includes(env("TOKEN")), "no token is shown");
  const gone = answer(once(anna, "disconnect"), "the disconnection");
  // The first button is that of the whole client.
  await page.getByRole("row", { name: "Status" }).getByRole("button").last().click();
  assert.deepEqual((await gone)[0], "io server disconnect");
  await shows(page, "disconnected");
}

const anna = await connect(url, env("TOKEN"), { via: "upgrade" });
const profile = await mkdtemp(join(tmpdir(), "imks-chromium-"));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.IMKS_TEST_CHROMIUM ?? "/usr/bin/chromium",
  viewport: { width: 1400, height: 900 },
  args: ["--headless", ...ARGUMENTS],
});
browser.setDefaultTimeout(10_000);
try {
  const page = await browser.newPage();
  const refused = [];
  page.on("console", (message) => /Content Security Policy/.test(message.text()) && refused.push(message.text()));
  // Fonts and icons of other places: not here.
  await page.route((it) => it.origin !== url, (route) => route.abort());
  await page.goto(`${url}/admin/`);
  await sign_in(page, "wrong");
  await shows(page, "Invalid credentials");
  await sign_in(page, env("PASSWORD"));
  await page.getByRole("row", { name: /^Healthy 1/ }).waitFor();
  await page.reload();
  await page.getByRole("row", { name: /^WebSocket 2/ }).waitFor();
  assert.equal(await page.getByLabel("Password").count(), 0, "the session is known");
  await page.getByRole("link", { name: "Servers" }).click();
  await shows(page, env("SERVER_ID"));
  assert.equal((await page.getByRole("link", { name: "Sockets" }).count()) > 0, DEVELOPMENT);
  if (DEVELOPMENT) await look_at_a_socket(page, anna);
  assert.deepEqual(refused, []);
  tell({ done: true });
} catch (error) {
  if (process.env.SCREENSHOT) await browser.pages().at(-1).screenshot({ path: process.env.SCREENSHOT });
  console.error(await browser.pages().at(-1).locator("body").ariaSnapshot());
  throw error;
} finally {
  anna.disconnect();
  await browser.close();
  await rm(profile, { recursive: true, force: true });
}
