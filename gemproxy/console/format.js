/** How numbers and times are written. */

const NUMBER = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const none = "–";

export function number(value) {
  return value === null || value === undefined ? none : NUMBER.format(value);
}

/** A number in few characters, such as 1.2M. */
export function short(value) {
  return value === null || value === undefined ? none : SHORT.format(value);
}

/** Seconds, as somebody would say them. */
export function seconds(value) {
  if (value === null || value === undefined) return none;
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  return value < 60 ? `${value.toFixed(1)} s` : age(value);
}

/** The same where only whole ones count. */
export function age(value) {
  if (value < 60) return `${Math.floor(Math.max(0, value))} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  if (value < 86400) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} d ${Math.floor((value % 86400) / 3600)} h`;
}

export function money(value, currency = "USD") {
  if (value === null || value === undefined) return none;
  const digits = value && value < 0.1 ? 4 : 2;
  return `${value.toFixed(digits)} ${currency}`;
}

const two = (value) => String(value).padStart(2, "0");

/** A moment on the clock of the reader; `time` is in seconds since the epoch, or a text in ISO 8601. */
export function moment(time) {
  if (time === null || time === undefined || time === "") return none;
  const date = new Date(typeof time === "number" ? time * 1000 : time);
  if (Number.isNaN(date.getTime())) return String(time);
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}
