// The `load` contract on npm socket.io, as one node of a cluster over @socket.io/redis-adapter: node cluster.js PORT REDIS_URL PREFIX
import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { serve } from "./contract.js";

const [port, url, key] = [Number(process.argv[2]), process.argv[3], process.argv[4]];
const publisher = createClient({ url });
const subscriber = publisher.duplicate();
await Promise.all([publisher.connect(), subscriber.connect()]);
serve(port, { adapter: createAdapter(publisher, subscriber, { key }) });
