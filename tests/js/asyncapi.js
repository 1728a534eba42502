// Reads the AsyncAPI document of a server with the official parser: node asyncapi.js http://127.0.0.1:3000
import { Parser } from "@asyncapi/parser";

const answer = await fetch(`${process.argv[2]}/api/v1/asyncapi.json`);
const { document, diagnostics } = await new Parser().parse(await answer.text());
for (const { severity, message, path } of diagnostics) {
  if (severity === 0) console.error(`${path.join(".")}: ${message}`);
}
if (!document) process.exit(1);
console.log(`${document.operations().all().length} operations, ${document.messages().all().length} messages`);
