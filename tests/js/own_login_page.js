// Users of an application with its own login chat through imks in a browser, on the application's own page.
import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { chromium_context } from "./chromium.js";
import { env, tell } from "./client.js";
import { application } from "./own_login_app.js";

const chat = {};
const { listening, url } = await application(env("PUBLIC_KEY_FILE"), chat);
tell({ listening: true });
({ value: chat.url } = await createInterface({ input: process.stdin })[Symbol.asyncIterator]().next());

async function sign_in(page, email, password) {
  await page.goto(url);
  await page.getByLabel("Email").fill(email);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
}

const say = async (page, body) => {
  await page.getByLabel("Message").fill(body);
  await page.getByRole("button", { name: "Send" }).click();
};

await chromium_context(async (browser) => {
  browser.setDefaultTimeout(10_000);
  const [ada, bob] = [await browser.newPage(), await browser.newPage()];
  await sign_in(ada, "ada@example.com", "guessed");
  await ada.getByText("wrong password").waitFor();
  await sign_in(ada, "ada@example.com", "secret");
  await ada.getByText("signed in as Ada Lovelace").waitFor();
  await sign_in(bob, "bob@example.com", "secret");
  await bob.getByText("signed in as Bob").waitFor();
  await say(ada, "hello");
  await bob.getByText("Ada Lovelace: hello").waitFor();
  await say(bob, "hello Ada");
  await ada.getByText("Bob: hello Ada").waitFor();
  assert.deepEqual(await ada.getByRole("listitem").allTextContents(), ["Ada Lovelace: hello", "Bob: hello Ada"]);
});
listening.close();
tell({ done: true });
