// @imks/client in a browser, as it is built: a page that sends, is cut off, is reloaded, and comes back. Bob talks to it
// meanwhile.
import assert from "node:assert/strict";
import { chromium_context } from "./chromium.js";
import { answer, env, tell } from "./client.js";
import { network } from "./cut.js";
import { client, history } from "./package_reader.js";

const AWAY = 300;
const wire = await network(env("URL"));
const bob = client(env("URL"), env("TOKEN_BOB"));
const { channels } = await answer(bob.connect(), "the session of Bob");
const { channel_id } = channels[0];

const IMPORTS = { "@imks/client": "/page/dist/index.js", "socket.io-client": "/page/socket.io.js" };
const SOCKET_IO = "../../clients/js/node_modules/socket.io-client/dist/socket.io.esm.min.js";
const FILES = {
  "/page/": ["text/html", `<!doctype html><meta charset="utf-8">
    <script type="importmap">${JSON.stringify({ imports: IMPORTS })}</script>
    <ul></ul><output></output>
    <script type="module">
      import { apply, createClient, WebStorageStore } from "@imks/client";
      const { token, channel_id, options } = JSON.parse(sessionStorage.page);
      const client = createClient({ url: location.origin, token, outbox: { store: new WebStorageStore("alice") }, ...options });
      const channel = client.channel(channel_id);
      const [list, output] = [document.querySelector("ul"), document.querySelector("output")];
      client.on("state", ({ state }) => { output.textContent = state; });
      window.send = (body) => void channel.send({ body });
      let messages = [];
      window.seen = () => messages.map(({ id, body }) => [id, body]);
      for await (const event of channel.messages({ from: { last: 100 } })) {
        messages = apply(messages, event);
        const item = ({ body }) => Object.assign(document.createElement("li"), { textContent: body });
        list.replaceChildren(...messages.map(item));
      }
    </script>`],
  "/page/socket.io.js": ["text/javascript", new URL(SOCKET_IO, import.meta.url)],
};

async function serve(route) {
  const { pathname } = new URL(route.request().url());
  const module = pathname.match(/^\/page\/(dist\/\w+\.js)$/);
  const [contentType, content] = module
    ? ["text/javascript", new URL(`../../clients/js/${module[1]}`, import.meta.url)]
    : (FILES[pathname] ?? ["text/plain", ""]);
  await route.fulfill({ contentType, ...(content instanceof URL ? { path: content.pathname } : { body: content }) });
}

const send = (page, body) => page.evaluate((body) => window.send(body), body);
const shows = (page, body) => page.getByRole("listitem").filter({ hasText: new RegExp(`^${body}$`) }).waitFor();
const is = (page, state) => page.locator("output").filter({ hasText: new RegExp(`^${state}$`) }).waitFor();

async function has_everything(page) {
  const [seen, stored] = [await page.evaluate(() => window.seen()), await history(bob, channel_id)];
  assert.deepEqual(seen, stored.slice(-seen.length).map(({ id, body }) => [id, body]));
  return seen.length;
}

async function open(page, options) {
  const kept = JSON.stringify({ token: env("TOKEN_ALICE"), channel_id, options });
  await page.addInitScript((kept) => { sessionStorage.page = kept; }, kept);
  await page.goto(`${wire.url}/page/`);
  await is(page, "connected");
}

async function is_cut_off_and_comes_back(page) {
  await send(page, "hello from the page");
  await shows(page, "hello from the page");
  wire.cut();
  await is(page, "reconnecting");
  await send(page, "written offline");
  for (let n = 0; n < AWAY; n += 50) {
    const bodies = Array.from({ length: 50 }, (_, at) => `while away ${n + at}`);
    await Promise.all(bodies.map((body) => bob.request("message:send", { channel_id, body })));
  }
  wire.heal();
  await shows(page, "written offline");
  assert.equal(await has_everything(page), 1 + AWAY + 1);
}

async function is_reloaded_before_its_message_was_sent(page) {
  wire.cut();
  await is(page, "reconnecting");
  await send(page, "before the reload");
  await page.reload();
  wire.heal();
  await shows(page, "before the reload");
  await has_everything(page);
  assert.equal((await history(bob, channel_id)).filter(({ body }) => body === "before the reload").length, 1);
  await page.waitForFunction(() => Object.keys(localStorage).length === 0);
}

// A page does not wait for its next attempt when the browser says that there is a network again.
async function is_back_at_once_when_the_browser_is_online(browser, page) {
  await open(page, { reconnectionDelay: 1_000_000, reconnectionDelayMax: 1_000_000 });
  await browser.setOffline(true);
  await is(page, "reconnecting");
  await send(page, "while the browser is offline");
  await browser.setOffline(false);
  await shows(page, "while the browser is offline");
  await has_everything(page);
}

await chromium_context(async (browser) => {
  browser.setDefaultTimeout(10_000);
  await browser.route("**/page/**", serve);
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.error(`page: ${error}`));
  await open(page, { reconnectionDelay: 50, reconnectionDelayMax: 200 });
  await is_cut_off_and_comes_back(page);
  await is_reloaded_before_its_message_was_sent(page);
  await is_back_at_once_when_the_browser_is_online(browser, await browser.newPage());
});
bob.close();
wire.close();
tell({ done: true });
