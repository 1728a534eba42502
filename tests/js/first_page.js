// The first page in a real browser: two people chat, a network is cut and comes back, the server is killed and comes back.
import assert from "node:assert/strict";
import { chromium_context } from "./chromium.js";
import { env, rising, tell, words } from "./client.js";

const url = env("URL");
const NONCE = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
// As many as web/person.js lets wait.
const OUTBOX_MAX = 50;
const MARKUP = "<img src=x onerror=alert(1)> & <b>bold</b>";

// One of the two on a page.
function person(page, name) {
  const region = page.getByRole("region", { name, exact: true });
  const outbox = region.locator(".outbox");
  return {
    name,
    region,
    outbox,
    network: page.getByRole("switch", { name: `Network of ${name}` }),
    is: (status) => region.locator(".status").getByText(status, { exact: true }).waitFor(),
    // As a person does with a keyboard.
    async writes(body) {
      await page.getByRole("textbox", { name: `Message from ${name}` }).fill(body);
      await page.keyboard.press("Enter");
    },
    sees: (body) => region.getByRole("log").getByText(body, { exact: true }).waitFor(),
    log: () =>
      region.locator(".message").evaluateAll((rows) =>
        rows.map((row) => ({
          seq: Number(row.dataset.seq),
          author: row.querySelector("b").textContent,
          body: row.querySelector(".body").textContent,
        })),
      ),
    waiting: () =>
      outbox.getByRole("listitem").evaluateAll((rows) =>
        rows.map((row) => ({ body: row.querySelector("span").textContent, nonce: row.querySelector("code").textContent })),
      ),
  };
}

// Everything that the browser asked for, and everything that it complained about.
function watch(page) {
  const seen = { addresses: [], complaints: [], sockets: [] };
  page.on("request", (request) => seen.addresses.push(request.url()));
  page.on("websocket", (socket) => {
    seen.addresses.push(socket.url());
    seen.sockets.push(socket);
  });
  page.on("console", (message) => message.type() !== "log" && seen.complaints.push(message.text()));
  page.on("pageerror", (error) => seen.complaints.push(String(error)));
  page.on("dialog", (dialog) => {
    seen.complaints.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  return seen;
}

async function both_see(ada, ben, bodies) {
  for (const body of bodies) await Promise.all([ada.sees(body), ben.sees(body)]);
  const [hers, his] = [await ada.log(), await ben.log()];
  assert.deepEqual(hers, his, "both see the same in the same order");
  assert.ok(rising(hers.map(({ seq }) => seq)), JSON.stringify(hers));
  assert.equal(hers.length, new Set(hers.map(({ body }) => body)).size, "nothing is there twice");
  return hers;
}

async function a_cut_network(ada, ben, seen) {
  // More than the server takes at once from one person: the rest has to be sent again.
  const alone = [...Array.from({ length: 12 }, (_, at) => `alone ${at + 1}`), MARKUP];
  const meanwhile = ["meanwhile 1", "meanwhile 2", "meanwhile 3"];
  await ada.writes("before");
  await both_see(ada, ben, ["before"]);
  await ada.network.click();
  await ada.is("Network is off");
  await ada.outbox.getByText("Outbox: nothing waits").waitFor();
  assert.equal(seen.sockets.filter((it) => !it.isClosed()).length, 1, "the connection is really gone");
  for (const body of alone) await ada.writes(body);
  for (const body of meanwhile) await ben.writes(body);
  await ben.sees(meanwhile.at(-1));
  const waiting = await ada.waiting();
  assert.deepEqual(waiting.map(({ body }) => body), alone);
  for (const { nonce } of waiting) assert.match(nonce, NONCE);
  assert.deepEqual((await ada.log()).map(({ body }) => body), ["before"], "nothing comes without a network");
  if (process.env.SCREENSHOTS) await pictures(ada.region.page(), "offline");
  await ada.network.click();
  const log = await both_see(ada, ben, [...alone, ...meanwhile]);
  assert.deepEqual(log.map(({ body }) => body), ["before", ...meanwhile, ...alone]);
  await ada.is("Connected");
  await ada.outbox.waitFor({ state: "hidden" });
  assert.deepEqual(await ada.waiting(), []);
  await ada.region.getByText(/^Away for \d+ s\. sync brought 3 messages\.$/).waitFor();
}

// Whether a message was stored before its network was gone, its writer cannot know.
async function cuts_in_the_middle(ada, ben) {
  const bodies = ["torn 1", "torn 2", "torn 3", "torn 4"];
  for (const body of bodies) {
    await ada.writes(body);
    await ada.network.click();
    await ada.is("Network is off");
    await ada.network.click();
  }
  const log = await both_see(ada, ben, bodies);
  assert.deepEqual(log.slice(-bodies.length).map(({ body }) => body), bodies);
  await ada.outbox.waitFor({ state: "hidden" });
}

// Each absence is told once, also if two of them have the same to tell, however often the list is drawn again.
async function absences_without_news(ada, ben) {
  const notes = ada.region.locator(".note");
  const before = await notes.count();
  for (let at = 1; at <= 2; at += 1) {
    await ada.network.click();
    await ada.is("Network is off");
    await ada.network.click();
    await ada.is("Connected");
  }
  await ada.writes("back again");
  await both_see(ada, ben, ["back again"]);
  await ada.outbox.waitFor({ state: "hidden" });
  assert.equal(await notes.count(), before + 2);
}

// What the server does not take, its writer sees, and it is in nobody's way.
async function a_refusal(ada, ben) {
  // More characters than a message has, and more bytes than the server takes at all.
  for (const [length, why, next] of [[8_001, /^body: /, "short enough"], [1_100_000, /^It is larger/, "shorter"]]) {
    await ada.writes("x".repeat(length));
    await ada.writes(next);
    await ada.outbox.getByText("Outbox: 1 refused").waitFor();
    await ada.outbox.getByText(why).waitFor();
    await both_see(ada, ben, [next]);
    await ada.outbox.getByRole("button", { name: "Discard" }).click();
    await ada.outbox.waitFor({ state: "hidden" });
  }
}

// The server dies: the page did nothing to cause it.
async function a_restart(page, ada, ben, hear) {
  tell({ ready: "for a restart" });
  await hear("restarted");
  // Whatever the page knows of the restart by now, this goes into the outbox or to the new server.
  await ada.writes("after the restart");
  await ben.writes("here too");
  await both_see(ada, ben, ["after the restart", "here too"]);
  await page.reload();
  await both_see(ada, ben, ["before", "alone 12", "after the restart", "here too"]);
}

async function typing(page, ada, ben) {
  await page.getByRole("textbox", { name: "Message from ben" }).pressSequentially("hm");
  await ada.region.getByText("ben is typing …").waitFor();
  await ben.writes("hm!");
  await both_see(ada, ben, ["hm!"]);
  await ada.region.getByText("ben is typing …").waitFor({ state: "hidden" });
  await ada.region.getByText("Here: ada, ben").waitFor();
}

async function on_a_phone(page) {
  await page.setViewportSize({ width: 360, height: 740 });
  const sizes = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(sizes[0] <= sizes[1], `no sideways scrolling: ${sizes}`);
  if (process.env.SCREENSHOTS) await pictures(page, "phone");
  await page.setViewportSize({ width: 1280, height: 800 });
}

// A name that tokens of the directory are for is refused, and the next one is a keystroke away.
async function a_taken_name(page) {
  await page.getByRole("textbox", { name: "Name ben" }).fill("alice");
  await page.keyboard.press("Enter");
  const region = page.getByRole("region", { name: "alice", exact: true });
  const reason = "alice is a user of the directory: choose another name, or get a token for alice with `imks token alice`";
  await region.locator(".status").getByText(reason, { exact: true }).waitFor();
  const field = page.getByRole("textbox", { name: "Name alice" });
  assert.equal(await field.getAttribute("aria-invalid"), "true");
  await field.and(page.locator(":focus")).waitFor();
  if (process.env.SCREENSHOTS) await pictures(page, "taken");
  await page.keyboard.type("ben");
  await page.keyboard.press("Enter");
  await person(page, "ben").is("Connected");
  assert.equal(await page.getByRole("textbox", { name: "Name ben" }).getAttribute("aria-invalid"), "false");
}

async function another_name(page, ada) {
  await page.getByRole("textbox", { name: "Name ben" }).fill("a name that cannot be!");
  await page.keyboard.press("Enter");
  await page.getByRole("region", { name: "a name that cannot be!" }).getByText(/^username/).waitFor();
  await page.getByRole("textbox", { name: "Name a name that cannot be!" }).fill("carol");
  await page.keyboard.press("Enter");
  const carol = person(page, "carol");
  await carol.is("Connected");
  await carol.writes("I am new here");
  await both_see(ada, carol, ["before", "I am new here"]);
}

// A full outbox says so, and the next message finds out for itself whether there is room.
async function a_full_outbox(page, ada) {
  await ada.network.click();
  await ada.is("Network is off");
  for (let at = 1; at <= OUTBOX_MAX; at += 1) await ada.writes(`waiting ${at}`);
  await ada.writes("one too many");
  const message = await page.getByRole("textbox", { name: "Message from ada" }).evaluate((field) => field.validationMessage);
  assert.equal(message, `The outbox is full (${OUTBOX_MAX})`);
  await ada.outbox.getByText(`Outbox: ${OUTBOX_MAX} wait`).waitFor();
  // Somebody else has an outbox of their own, and what was not taken is still in the field.
  await page.getByRole("textbox", { name: "Name ada" }).fill("dora");
  await page.keyboard.press("Enter");
  await page.getByRole("textbox", { name: "Message from dora" }).press("Enter");
  await person(page, "dora").outbox.getByText("Outbox: 1 waits").waitFor();
}

async function pictures(page, name) {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}-${colorScheme}.png`, fullPage: true });
  }
  await page.emulateMedia({ colorScheme: null });
}

const hear = words();
await chromium_context(
  async (browser) => {
    browser.setDefaultTimeout(15_000);
    const page = await browser.newPage();
    const seen = watch(page);
    try {
      await page.goto(`${url}/`);
      const [ada, ben] = [person(page, "ada"), person(page, "ben")];
      await Promise.all([ada.is("Connected"), ben.is("Connected")]);
      await a_cut_network(ada, ben, seen);
      await cuts_in_the_middle(ada, ben);
      await absences_without_news(ada, ben);
      await a_refusal(ada, ben);
      await typing(page, ada, ben);
      if (process.env.SCREENSHOTS) await pictures(page, "online");
      await on_a_phone(page);
      assert.deepEqual(seen.complaints, [], "the browser has nothing to complain about");
      await a_restart(page, ada, ben, hear);
      await a_taken_name(page);
      await another_name(page, ada);
      await a_full_outbox(page, ada);
      const origins = new Set(seen.addresses.map((it) => new URL(it).host));
      assert.deepEqual([...origins], [new URL(url).host], "everything comes from this server");
      assert.deepEqual(await browser.cookies(), []);
      assert.equal(await page.evaluate(() => document.cookie + localStorage.length + sessionStorage.length), "00");
    } catch (error) {
      console.error(await page.locator("body").ariaSnapshot(), seen.complaints);
      throw error;
    }
  },
  { viewport: { width: 1280, height: 800 } },
);
tell({ done: true });
