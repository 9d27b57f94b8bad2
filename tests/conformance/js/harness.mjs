// Cases for supabase-js: each is run, and reported as one JSON line {name, ok, error, seconds}.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'

const settings = JSON.parse(process.argv[2])
const require = createRequire(`${settings.modules}/package.json`)
const { createClient } = require('@supabase/supabase-js')

export const { url, serviceKey, anonKey, users, prefix } = settings
export { assert }

const options = (headers = {}) => {
  const found = {
    auth: { persistSession: false, autoRefreshToken: false },
    global: { headers, fetch: remembering },
    realtime: {},
  }
  // Node has a WebSocket of its own since version 22.
  if (typeof WebSocket === 'undefined') found.realtime.transport = require('ws')
  return found
}

/** The last request and its answer's headers, for what the client does not hand on. */
export const wire = { url: '', method: '', headers: new Headers(), request: new Headers() }

const remembering = async (input, init) => {
  const response = await fetch(input, init)
  Object.assign(wire, {
    url: String(input),
    method: init?.method ?? 'GET',
    headers: response.headers,
    request: new Headers(init?.headers),
  })
  return response
}

const clients = []
/** A client; with a token it is that user's. */
export const client = (key = serviceKey, token = undefined) => {
  const made = createClient(url, key, options(token ? { Authorization: `Bearer ${token}` } : {}))
  clients.push(made)
  return made
}

export const service = client()
export const table = (name, who = service) => who.from(prefix + name)
export const rpc = (name, args, opts, who = service) => who.rpc(prefix + name, args, opts)

/** Fails unless the answer has this status and no error; returns its data. */
export const ok = (answer, status = 200) => {
  assert.equal(answer.error, null)
  assert.equal(answer.status, status)
  return answer.data
}

/** Fails unless the answer is this error, with four keys. */
export const refused = (answer, status, code, texts = {}) => {
  assert.equal(answer.status, status, JSON.stringify(answer))
  assert.equal(answer.data, null)
  assert.equal(answer.error.code, code)
  for (const key of ['code', 'message', 'details', 'hint']) assert.ok(key in answer.error, key)
  for (const [key, text] of Object.entries(texts)) assert.equal(answer.error[key], text)
}

const cases = []
export const check = (name, run) => cases.push({ name, run })

export const within = (promise, what, seconds = 15) => {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come`)), seconds * 1000)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** Runs all cases, one after the other unless they are said to be independent. */
export async function main({ together = false } = {}) {
  const one = async ({ name, run }) => {
    const began = performance.now()
    let error = null
    try {
      await within(Promise.resolve(run()), 'the end of the case', 40)
    } catch (caught) {
      error = String(caught?.stack ?? caught)
    }
    console.log(JSON.stringify({ name, ok: error === null, error, seconds: (performance.now() - began) / 1000 }))
  }
  if (together) await Promise.all(cases.map(one))
  else for (const each of cases) await one(each)
  for (const each of clients) await each.realtime.disconnect()
  process.exit(0)
}
