// One worker of a group: reads the events of a bot out of a NATS stream, and acknowledges each when it was handled.
//     npm install && node nats_worker.js nats://127.0.0.1:4222 STREAM PREFIX [GROUP]
// Each shard has a consumer that is pinned to one worker, so its events stay in order. When a worker ends or is killed, another one
// goes on within ten seconds, also one of `discorder.subscribe("nats://...", group=GROUP)`. An event that takes more than six
// seconds comes again. The document of an event: docs/delivery.md. Needs NATS 2.11.
import { connect, createInbox } from "nats"

const [server = "nats://127.0.0.1:4222", stream, prefix, group = "workers"] = process.argv.slice(2)
const nanoseconds = seconds => seconds * 1e9
const nats = await connect({ servers: server, maxReconnectAttempts: -1, pingInterval: 5_000, waitOnFirstConnect: true })

async function handle(event) {
  console.log(event.type, event.shard[0], event.type === "DISCORDER_GAP" ? event.data.cause : event.seq)
}

async function api(subject, request) {
  const answer = (await nats.request(`$JS.API.${subject}`, JSON.stringify(request), { timeout: 5_000 })).json()
  if (answer.error) throw new Error(`${subject}: ${answer.error.description}`)
  return answer
}

async function makeConsumer(name, count, shard) {
  const config = {
    name, durable_name: name, deliver_policy: "all", ack_policy: "explicit", ack_wait: nanoseconds(6), max_ack_pending: 128,
    filter_subjects: [`${prefix}.${count}.${shard}.*`, `${prefix}.record.${count}.${shard}.*`],
    priority_groups: ["workers"], priority_policy: "pinned_client", priority_timeout: nanoseconds(10),
  }
  try {
    await api(`CONSUMER.CREATE.${stream}.${name}`, { stream_name: stream, action: "create", config })
  } catch (error) {
    if (!error.message.includes("already exists")) throw error // another worker was first
  }
}

/** Read one shard for ever. A request every few seconds keeps the pin; the server ends each with a status. */
async function read(name) {
  const inbox = createInbox()
  let pin, left, heard, last
  const request = () => {
    left = 32
    heard = Date.now()
    const wanted = { batch: left, expires: nanoseconds(4), group: "workers", ...(pin && { id: pin }) }
    nats.publish(`$JS.API.CONSUMER.MSG.NEXT.${stream}.${name}`, JSON.stringify(wanted), { reply: inbox })
  }
  setInterval(() => Date.now() - heard > 6_000 && request(), 1_000) // after a broken connection, and while `handle` is slow
  const messages = nats.subscribe(inbox)
  request()
  for await (const message of messages) {
    if (message.reply) {
      pin = message.headers?.get("Nats-Pin-Id") ?? pin
      const event = message.json()
      const again = event.seq !== null && last?.session === event.session && event.seq <= last.seq // a late acknowledgement
      if (!again) await handle(event)
      if (!again && event.seq !== null) last = event
      message.respond() // acknowledges it
      left -= 1
    } else {
      if (message.headers?.code === 423) pin = undefined // another worker has the shard
      else if (message.headers?.code !== 408) await new Promise(resolve => setTimeout(resolve, 1_000))
      left = 0
    }
    if (left <= 0) request()
  }
}

const known = new Set()
for (;;) {
  try {
    const { state } = await api(`STREAM.INFO.${stream}`, { subjects_filter: `${prefix}.*.*.*` })
    for (const subject of Object.keys(state.subjects ?? {})) {
      const [count, shard] = subject.slice(prefix.length + 1).split(".")
      const name = `${group}_${count}_${shard}`
      if (known.has(name)) continue
      await makeConsumer(name, count, shard)
      known.add(name)
      read(name)
    }
  } catch (error) {
    console.error(error.message) // there is no server or no stream yet
  }
  await new Promise(resolve => setTimeout(resolve, 2_000))
}
