// Follows the bus without losing an event, and shows a status. With `discorder serve` running:
//     npm install && node subscriber.js [ADDRESS] [ROUTER] [TYPE...]
// The protocol: docs/bus.md.
import { Dealer, Subscriber } from "zeromq"

const [address = "tcp://127.0.0.1:6000", router = "tcp://127.0.0.1:6001", ...types] = process.argv.slice(2)
if (types.length === 0) types.push("MESSAGE_CREATE")

const bus = new Subscriber()
const dealer = new Dealer({ receiveTimeout: 10_000 })
bus.connect(address)
dealer.connect(router)
types.forEach(type => bus.subscribe(type))

let requests = 0

/** Send a request; yield the parts of the answer and return the last one. */
async function* ask(request) {
  const id = String(++requests)
  await dealer.send(JSON.stringify({ v: 1, id, ...request }))
  for await (const [answered, topic, document] of dealer) {
    if (answered.toString() !== id) continue // of an abandoned request
    if (topic.length > 0) yield JSON.parse(document)
    else return JSON.parse(document)
  }
}

async function command(name, d, target = {}) {
  const { value } = await ask({ op: "command", command: name, d, ...target }).next()
  if (!value.ok) throw new Error(`${name}: ${value.error}: ${value.message}`)
}

// The last event handled, for each type on each shard.
const seen = new Map()

function isNew(event, last) {
  return last === undefined || last.session !== event.session || event.seq > last.seq
}

function handle(event, how) {
  seen.set(`${event.shard[0]} ${event.type}`, event)
  console.log(how, event.type, event.seq)
}

/** Events between `last` and `event` were lost: request everything of this type that the bus still has. */
async function fill(last, event) {
  console.log("gap", event.type, last.seq, event.prev)
  const answer = ask({ op: "replay", shard: event.shard[0], session: last.session, after: last.seq, types: [event.type] })
  let part = await answer.next()
  for (; !part.done; part = await answer.next()) {
    if (isNew(part.value, seen.get(`${part.value.shard[0]} ${part.value.type}`))) handle(part.value, "replayed")
  }
  if (!part.value.complete) console.log("lost", event.type, JSON.stringify(part.value))
}

await command("presence", { status: "idle", since: null, afk: false, activities: [] })
console.log("presence set")

for await (const [topic, document] of bus) {
  if (!types.includes(topic.toString())) continue // topics match by prefix
  const event = JSON.parse(document)
  const last = seen.get(`${event.shard[0]} ${event.type}`)
  if (!isNew(event, last)) continue
  // prev null: not known, after a restart of the control plane. Another session: Discord no longer has the events between the two.
  const follows = last === undefined || (last.session === event.session && event.prev === last.seq)
  if (!follows) await fill(last, event)
  if (isNew(event, seen.get(`${event.shard[0]} ${event.type}`))) handle(event, "live")
}
