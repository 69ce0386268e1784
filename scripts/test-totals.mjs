// Reads the results of a test run, `.test-results.json`, and prints the ten slowest files, why tests were skipped, and
// on the last line "N passed, N failed, N skipped". Exits 1 if a test failed or was skipped without saying why, or
// if none ran.
import { readFileSync } from "node:fs";
import { relative } from "node:path";

const SLOW_FILES = 10;

const results = JSON.parse(readFileSync(process.argv[2] ?? ".test-results.json", "utf8"));
const tests = results.testResults.flatMap(({ assertionResults }) => assertionResults);
const count = (...states) => tests.filter(({ status }) => states.includes(status)).length;

console.log("\nSlowest files:");
const seconds = ({ startTime, endTime }) => (endTime - startTime) / 1000;
const slowest = results.testResults.toSorted((a, b) => seconds(b) - seconds(a));
for (const file of slowest.slice(0, SLOW_FILES)) {
  console.log(`${seconds(file).toFixed(1).padStart(7)} s  ${relative("", file.name)}`);
}

const reasons = new Map();
for (const { status, fullName } of tests) {
  if (!["pending", "skipped", "todo"].includes(status)) continue;
  const reason = /\(missing: ([^)]*)\)/.exec(fullName)?.[1];
  const key = reason ? `missing: ${reason}` : `no reason given: ${fullName}`;
  reasons.set(key, (reasons.get(key) ?? 0) + 1);
  if (!reason) process.exitCode = 1;
}
if (reasons.size > 0) console.log("\nSkipped tests:");
for (const [reason, number] of reasons) console.log(`${String(number).padStart(7)}  ${reason}`);

const passed = count("passed");
// A file that cannot be loaded, or leaves its process changed, has no test that failed.
const broken = results.testResults.filter(
  ({ status, assertionResults }) =>
    status === "failed" && !assertionResults.some(({ status }) => status === "failed"),
);
for (const { name, message } of broken) console.log(`\n${relative("", name)}: ${message}`);
const failed = count("failed") + broken.length;
console.log(`\n${passed} passed, ${failed} failed, ${count("pending", "skipped", "todo")} skipped`);
if (failed > 0 || passed === 0) process.exitCode = 1;
