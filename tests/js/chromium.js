// A real browser, with a page that has the stock client.
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const ARGUMENTS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

// A page in a secure context, with the client's own browser build.
async function page_server() {
  const bundle = await readFile(new URL("./node_modules/socket.io-client/dist/socket.io.js", import.meta.url));
  const server = createServer((request, response) => {
    const script = request.url === "/socket.io.js";
    response.setHeader("content-type", script ? "text/javascript" : "text/html");
    response.end(script ? bundle : '<!doctype html><script src="/socket.io.js"></script>');
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

// Lets `act` do something with a browser, and closes it. With Playwright's options of a context.
export async function chromium_context(act, options = {}) {
  const profile = await mkdtemp(join(tmpdir(), "imks-chromium-"));
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.IMKS_TEST_CHROMIUM ?? "/usr/bin/chromium",
    args: ARGUMENTS,
    ...options,
  });
  try {
    await act(browser);
  } finally {
    await browser.close();
    await rm(profile, { recursive: true, force: true });
  }
}

// Opens the page, lets `act` do something with it and its origin, and closes everything.
export async function browse(act) {
  const pages = await page_server();
  try {
    await chromium_context(async (browser) => {
      const page = await browser.newPage();
      page.on("console", (message) => console.error(`page: ${message.text()}`));
      const origin = `http://localhost:${pages.address().port}`;
      await page.goto(`${origin}/`);
      await act(page, origin);
    });
  } finally {
    pages.close();
  }
}
