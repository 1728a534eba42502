// A network that can be cut: a TCP proxy in front of a server.
import { connect, createServer } from "node:net";

// Every connection goes to the server at `url`, while the network is whole.
export async function network(url) {
  const target = new URL(url);
  const open = new Set();
  let [isCut, isDeaf, isSilent] = [false, false, false];
  const listener = createServer((client) => {
    if (isCut) return client.destroy();
    const server = connect(Number(target.port), target.hostname);
    for (const end of [client, server]) {
      const other = end === client ? server : client;
      open.add(end);
      end.on("data", (bytes) => isSilent || (isDeaf && end === server) || other.write(bytes));
      end.on("error", () => {});
      end.on("close", () => (open.delete(end), isSilent || other.destroy()));
    }
  });
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const drop = () => open.forEach((end) => end.destroy());
  return {
    url: `http://127.0.0.1:${listener.address().port}`,
    // Nobody is connected, and nobody can connect.
    cut: () => ((isCut = true), drop()),
    // The server gets everything, and nothing of what it says arrives.
    deafen: () => (isDeaf = true),
    // Connections stay open, and nothing passes.
    silence: () => (isSilent = true),
    // New connections work.
    heal: () => (([isCut, isDeaf, isSilent] = [false, false, false]), drop()),
    close: () => (listener.close(), drop()),
  };
}
