import { Argument, Command } from "commander";
import { addHelpEnd } from "./help-end.ts";

/** `tvix-store completion bash|zsh|fish` */
export function completionCommand(): Command {
  const command = new Command("completion")
    .description("Prints a script that completes commands, options and their values in a shell")
    .addArgument(new Argument("<shell>", "the shell").choices(["bash", "zsh", "fish"]))
    .action(async (shell: string) => {
      const { COMPLETION_SCRIPTS } = await import("../completion/completion-scripts.ts");
      const { writeStdout } = await import("../terminal/output.ts");
      const { run } = await import("../run.ts");
      await run(({ signal }) => writeStdout(COMPLETION_SCRIPTS[shell]!, { signal }));
    });
  return addHelpEnd(command, {
    examples: [
      ["source <(tvix-store completion bash)", "in ~/.bashrc"],
      ["source <(tvix-store completion zsh)", "in ~/.zshrc, after compinit"],
      ["tvix-store completion fish | source", "in ~/.config/fish/config.fish"],
    ],
  });
}

/** `tvix-store complete -- WORD...`, which the scripts call with the words up to the one to complete */
export function completeCommand(): Command {
  const command = new Command("complete")
    .description("Prints what the last of some words can become")
    .argument("[word...]", "the words after the program")
    .action(async (words: string[]) => {
      const { completionsOf } = await import("../completion/completions.ts");
      const { run } = await import("../run.ts");
      const { writeStdout } = await import("../terminal/output.ts");
      const lines = completionsOf(command.parent!, words).map((line) => `${line}\n`);
      await run(({ signal }) => writeStdout(lines.join(""), { signal }));
    });
  return command;
}
