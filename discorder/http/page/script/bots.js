/* The bots of the façade: who is connected, how far behind each is, and who is away. */

const MOST_RANGES = 12; // of shards; the others are counted

function shardRanges(shards) {
  const runs = [];
  for (const shard of shards) {
    const last = runs.at(-1);
    if (last && last[1] === shard - 1) last[1] = shard;
    else runs.push([shard, shard]);
  }
  const shown = runs.slice(0, MOST_RANGES), more = runs.slice(MOST_RANGES).reduce((sum, [first, last]) => sum + last - first + 1, 0);
  const words = shown.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(", ");
  return more ? `${words} and ${count(more)} more` : words;
}

function botState(bot) {
  const [word, shape, tone] = isLate(bot) ? ["behind", "alert", "bad"] : bot.refused ? ["refused", "alert", "bad"] : bot.sessions ? ["connected", "check", "good"] : ["not connected", "ring", "wait"];
  return el("span", {class: `with ${tone}`}, icon(shape), strong(word));
}

function botShards(bot) {
  const ranges = shardRanges(bot.shards) || DASH;
  return bot.sessions > bot.shards.length ? [ranges, small(some(bot.sessions, "session"))] : ranges;
}

function botBehind(bot) {
  if (!bot.sessions) return DASH;
  return bot.lag_events ? [millis(bot.lag_s), small(some(bot.lag_events, "event"))] : "nothing";
}

function bots() {
  const {facade: it} = doc;
  byId("bots").hidden = !it;
  if (!it) return;
  const connected = it.bots.filter((bot) => bot.sessions).length;
  byId("bots-cap").textContent = `${count(connected)} of ${count(it.bots.length)} connected at ${it.url.replaceAll("http://", "")}`;
  rows("bot-rows", it.bots.map((bot) => [
    [[strong(bot.name), small(bot.libraries.join(", "))]],
    [[botState(bot), bot.refused ? small(bot.refused) : null], bot.refused ? null : "tight"],
    [botShards(bot)],
    [bot.since || !bot.seen_at ? since(bot.since) : since(bot.seen_at, "not for "), "tight"],
    [botBehind(bot), isLate(bot) ? "num bad" : "num"],
    [count(bot.identifies), "num"],
    [count(bot.resumes), "num"],
    [count(bot.invalid_sessions), "num"],
  ]));
}
