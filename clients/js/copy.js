// What the package has from elsewhere in the repository: the generated contract, and the licences.
import { copyFileSync, renameSync } from "node:fs";

for (const file of ["../types/imks.d.ts", "../../LICENSE-MIT", "../../LICENSE-APACHE"]) {
  const place = new URL(`dist/${file.split("/").at(-1)}`, import.meta.url);
  const copy = new URL(`${place}.new`);
  copyFileSync(new URL(file, import.meta.url), copy);
  // Tests run at the same time as this: each finds the whole file.
  renameSync(copy, place);
}
