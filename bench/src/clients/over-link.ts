/**
 * Runs a command over a slow link to a port of this machine, made by toxiproxy. Reports how long it took, and how many
 * bytes it sent.
 *
 *   over-link.ts PORT COMMAND...
 *
 * In the command, {link} stands for the port of the link, and {FILE} for the contents of a file.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { findProgram } from "@tvix/conformance/find-program";
import { execa } from "execa";
import { reportWork, secondsOf } from "./report-work.ts";

const API_PORT = 18_576;
const LINK_PORT = 18_577;
const API = `http://127.0.0.1:${API_PORT}`;

/** 50 Mbit/s, in the unit of toxiproxy. */
const KB_PER_SECOND = 6_250;

/** Half of a round trip of 20 ms. */
const LATENCY_MS = 10;

const [port, ...command] = process.argv.slice(2) as [string, ...string[]];
const [program, ...args] = command.map((word) =>
  word
    .replace("{link}", `${LINK_PORT}`)
    .replace(/\{(.*)\}/, (_, file) => readFileSync(file, "utf8").trim()),
);
const proxy = spawn(findProgram("run-toxiproxy")!, ["-proxy-metrics"], {
  env: { ...process.env, PORT: `${API_PORT}` },
  stdio: "ignore",
});
try {
  await openLink(proxy);
  const seconds = await secondsOf(async () => {
    await execa(program!, args, { stdin: "ignore", stdout: "ignore" });
  });
  reportWork({ seconds, bytes: await sentBytes() });
} finally {
  proxy.kill();
}

async function openLink(proxy: ChildProcess): Promise<void> {
  const upstream = `127.0.0.1:${port}`;
  await post(proxy, "proxies", { name: "link", listen: `127.0.0.1:${LINK_PORT}`, upstream });
  for (const stream of ["upstream", "downstream"]) {
    const bandwidth = { type: "bandwidth", stream, attributes: { rate: KB_PER_SECOND } };
    const latency = { type: "latency", stream, attributes: { latency: LATENCY_MS } };
    await post(proxy, "proxies/link/toxics", bandwidth);
    await post(proxy, "proxies/link/toxics", latency);
  }
}

/** Calls toxiproxy, and waits until it listens. */
async function post(proxy: ChildProcess, path: string, body: object): Promise<void> {
  for (;;) {
    try {
      const response = await fetch(`${API}/${path}`, {
        method: "POST",
        body: JSON.stringify(body),
      });
      if (!response.ok) throw new Error(`Cannot use this run: ${await response.text()}`);
      return;
    } catch (error) {
      if (!(error instanceof TypeError) || proxy.exitCode !== null) throw error;
      await sleep(20);
    }
  }
}

/** The bytes that went to the server. */
async function sentBytes(): Promise<number> {
  const metrics = await (await fetch(`${API}/metrics`)).text();
  const pattern = /^toxiproxy_proxy_received_bytes_total\{direction="upstream".*\} (\S+)$/m;
  const [, bytes] = pattern.exec(metrics) ?? [];
  if (bytes === undefined) throw new Error(`Cannot use this run: ${metrics}`);
  return Number(bytes);
}
