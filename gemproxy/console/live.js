/** What is under way, as the daemon tells it while the page is open. */

import { ask, events } from "./api.js";

// Seconds until the daemon is asked again, which grow with each time that it cannot be reached.
const FIRST_WAIT = 1;
const LONGEST_WAIT = 15;

/**
 * What is known now.
 *
 * `requests` are those under way by their ids, in the order in which they began; `rest` is all
 * other fields. `changed` are the names of the fields that an event has changed; of the requests
 * those that are new or changed are in `touched`.
 */
export class Live {
  constructor() {
    this.requests = new Map();
    this.rest = {};
    this.total = 0;
    this.lead = 0;
  }

  /** The time at the daemon, in seconds. */
  now() {
    return Date.now() / 1000 + this.lead;
  }

  take({ event, data }) {
    const { time, requests, requests_total: total, ...rest } = JSON.parse(data);
    this.lead = time - Date.now() / 1000;
    if (total !== undefined) this.total = total;
    if (event === "state") {
      this.requests = new Map(requests.map((request) => [request.id, request]));
      this.rest = rest;
    } else {
      Object.assign(this.rest, rest);
      for (const id of requests?.ended ?? []) this.requests.delete(id);
      for (const request of requests?.new ?? []) this.requests.set(request.id, request);
      for (const change of requests?.changed ?? []) {
        const known = this.requests.get(change.id);
        if (known) this.requests.set(change.id, { ...known, ...change });
      }
    }
    return Object.keys(rest);
  }
}

/**
 * Listens until the signal; `told` is called with the names of the fields that have changed, and
 * `lost` with the error when the daemon cannot be reached.
 */
export async function follow(live, { signal, told, lost }) {
  for (let wait = FIRST_WAIT; !signal.aborted; wait = Math.min(wait * 2, LONGEST_WAIT)) {
    try {
      const response = await ask("admin/live", {
        signal,
        headers: { accept: "text/event-stream" },
      });
      for await (const event of events(response)) {
        wait = FIRST_WAIT;
        told(live.take(event));
      }
      lost({ message: "The daemon has ended the connection." });
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401 || error.status === 403) throw error;
      lost(error);
    }
    await pause(wait, signal);
  }
}

function pause(seconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, seconds * 1000);
    signal.addEventListener("abort", end);
  });
}
