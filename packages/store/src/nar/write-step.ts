import type { Step } from "./walk-steps.ts";
import type { NarWriter } from "./writer.ts";

/** Writes all of a step but the contents of a file. */
export function writeStep(
  writer: NarWriter,
  step: Exclude<Step, { readonly type: "begin" }>,
): void {
  if (step.type !== "leave" && step.place !== undefined) writer.entry(step.place.name);
  switch (step.type) {
    case "enter":
      writer.enterDirectory();
      break;
    case "leave":
      writer.leaveDirectory();
      break;
    case "symlink":
      writer.symlink(step.target);
      break;
    case "file":
      writer.file(step.file.size, step.file.executable);
  }
}
