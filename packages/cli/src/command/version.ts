import { Command } from "commander";
import { addHelpEnd } from "./help-end.ts";

/** `tvix-store version` */
export function versionCommand(): Command {
  const command = new Command("version")
    .description("Prints the version, and what it runs on")
    .option("--json", "print an object of JSON")
    .action(async ({ json = false }: { json?: boolean }) => {
      const { printVersion } = await import("../version.ts");
      const { run } = await import("../run.ts");
      await run(({ signal }) => printVersion({ json, signal }));
    });
  return addHelpEnd(command, {
    examples: [["tvix-store version --json", "reports what a bug report needs"]],
  });
}
