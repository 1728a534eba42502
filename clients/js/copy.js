// What the package has from elsewhere in the repository: the generated contract, and the licences.
import { copyFileSync } from "node:fs";

for (const file of ["../types/imks.d.ts", "../../LICENSE-MIT", "../../LICENSE-APACHE"]) {
  copyFileSync(new URL(file, import.meta.url), new URL(`dist/${file.split("/").at(-1)}`, import.meta.url));
}
