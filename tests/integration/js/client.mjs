// Drives the embedded Supabase with supabase-js and prints what it saw, one JSON line a step.
// Arguments: folder with node_modules, URL, service key.
import { createRequire } from 'node:module'

const [modules, url, key] = process.argv.slice(2)
const require = createRequire(`${modules}/package.json`)
const { createClient } = require('@supabase/supabase-js')

const options = { auth: { persistSession: false, autoRefreshToken: false }, realtime: {} }
// Node has a WebSocket of its own since version 22.
if (typeof WebSocket === 'undefined') options.realtime.transport = require('ws')

const say = (step, value) => console.log(JSON.stringify({ step, ...value }))
const supabase = createClient(url, key, options)

const within = (promise, what) =>
  Promise.race([promise, new Promise((_, reject) => setTimeout(() => reject(new Error(`no ${what}`)), 20_000).unref())])

/** A promise and the function that fulfils it. */
const awaited = () => {
  let fulfil
  const promise = new Promise((resolve) => (fulfil = resolve))
  return { promise, fulfil }
}

async function main() {
  const inserted = await supabase
    .from('todolist')
    .insert([{ agent_type: 'js', prompt: 'first', input_data: { n: [1, 2.5, null] } }])
    .select()
    .single()
  say('insert', { status: inserted.status, error: inserted.error, prompt: inserted.data?.prompt })

  const selected = await supabase
    .from('todolist')
    .select('id, prompt, input_data', { count: 'exact' })
    .eq('agent_type', 'js')
    .order('created_at', { ascending: false })
    .range(0, 9)
  say('select', { error: selected.error, count: selected.count, rows: selected.data?.length, data: selected.data?.[0]?.input_data })

  const called = await supabase.rpc('reactive_worker_schema_version')
  say('rpc', { error: called.error, data: called.data })

  const missing = await supabase.from('nothing_like_it').select()
  say('missing', { status: missing.status, code: missing.error?.code })

  const [ready, change, echo, joined] = [awaited(), awaited(), awaited(), awaited()]
  const channel = supabase
    .channel('js', { config: { broadcast: { self: true, ack: true }, presence: { key: 'w1', enabled: true } } })
    .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'todolist', filter: 'agent_type=eq.js' }, change.fulfil)
    .on('broadcast', { event: 'wake' }, echo.fulfil)
    .on('presence', { event: 'join' }, joined.fulfil)
    .on('system', {}, (message) => message.extension === 'postgres_changes' && ready.fulfil(message))
    .subscribe((status, error) => say('status', { status, error: error?.message }))
  say('endpoint', { vsn: new URL(supabase.realtime.endpointURL()).searchParams.get('vsn') })
  say('system', { message: (await within(ready.promise, 'system message')).message })

  await supabase.from('todolist').insert([{ agent_type: 'other', prompt: 'filtered out' }, { agent_type: 'js', prompt: 'second' }])
  const payload = await within(change.promise, 'change')
  say('change', { type: payload.eventType, prompt: payload.new.prompt, errors: payload.errors, table: payload.table })

  say('sent', { answer: await channel.send({ type: 'broadcast', event: 'wake', payload: { queue: 'mail' } }) })
  say('broadcast', { payload: (await within(echo.promise, 'broadcast')).payload })

  say('tracked', { answer: await channel.track({ worker: 'w1' }) })
  say('presence', { key: (await within(joined.promise, 'presence')).key })

  say('removed', { answer: await supabase.removeChannel(channel) })
  await supabase.realtime.disconnect()
}

main().then(
  () => process.exit(0),
  (error) => {
    say('failed', { message: String(error?.stack ?? error) })
    process.exit(1)
  },
)
