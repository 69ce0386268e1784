import { describe, expect, it } from "vitest";
import { replaceReport } from "./report.ts";

describe("a report in a file", () => {
  it("takes the place of an earlier one, and leaves the text around it alone", () => {
    const text = "before\n<!-- results -->\nold\n<!-- /results -->\nafter\n";
    expect(replaceReport(text, "new")).toBe(
      "before\n<!-- results -->\n\nnew\n\n<!-- /results -->\nafter\n",
    );
  });

  it("is refused where there is no place for it", () => {
    expect(() => replaceReport("no markers", "new")).toThrow("Cannot write report");
  });
});
