/** The redirects that docs/remote-hosts.md gives for web servers, run as they stand there in the real servers. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, test } from 'node:test'
import { request } from 'node:http'
import { freePort } from '../helpers/sshd.js'
import { until } from '../helpers/until.js'

const document = readFileSync(new URL('../../docs/remote-hosts.md', import.meta.url), 'utf8')
const path = '/.well-known/acme-challenge/LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0'

interface WebServer {
  readonly program: string
  /** The language of the code block in the document. */
  readonly block: string
  /** A whole configuration around the lines of the document, with a redirect to https behind them. */
  readonly config: (lines: string, port: number, directory: string, program: string) => string
  readonly args: (config: string) => string[]
}

const servers: WebServer[] = [{
  program: 'nginx',
  block: 'nginx',
  config: (lines, port, directory) => `pid ${directory}/pid; daemon off; error_log ${directory}/error.log;
    events {}
    http { access_log off; client_body_temp_path ${directory}/b; proxy_temp_path ${directory}/p;
      fastcgi_temp_path ${directory}/f; uwsgi_temp_path ${directory}/u; scgi_temp_path ${directory}/s;
      server { listen 127.0.0.1:${port}; ${lines}
        location / { return 301 https://$host$request_uri; } } }`,
  args: (config) => ['-c', config, '-e', `${dirname(config)}/error.log`],
}, {
  program: 'apache2',
  block: 'apache',
  config: (lines, port, directory, program) => {
    const modules = join(dirname(program), '..', 'lib', 'apache2', 'modules')
    return `ServerRoot ${directory}\nServerName localhost\nListen 127.0.0.1:${port}\nPidFile ${directory}/pid
ErrorLog ${directory}/error.log\n${process.getuid?.() === 0 ? 'User daemon\nGroup daemon\n' : ''}
LoadModule mpm_event_module ${modules}/mod_mpm_event.so\nLoadModule alias_module ${modules}/mod_alias.so
LoadModule authz_core_module ${modules}/mod_authz_core.so
<VirtualHost *:${port}>\n${lines}\nRedirect permanent "/" "https://mail.example.com/"\n</VirtualHost>\n`
  },
  args: (config) => ['-X', '-f', config],
}, {
  program: 'caddy',
  block: 'caddy',
  config: (lines, port) => `{\nadmin off\n}\n${lines.replace('mail.example.com {', `mail.example.com:${port} {`)
    .replace(/\}\s*$/u, 'redir * https://{host}{uri} 301\n}\n')}`,
  args: (config) => ['run', '--adapter', 'caddyfile', '--config', config],
}, {
  program: 'haproxy',
  block: 'haproxy',
  config: (lines, port) => `defaults\n mode http\n timeout client 9s\n timeout connect 9s\n timeout server 9s
frontend web\n bind 127.0.0.1:${port}\n ${lines}\n http-request redirect scheme https code 301\n`,
  args: (config) => ['-f', config],
}]

/** Where PATH, or else the directories for system programs, have it. */
function find(program: string): string | undefined {
  return [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'].map((directory) => join(directory, program))
    .find((file) => existsSync(file))
}

function location(port: number, url: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    request({ host: '127.0.0.1', port, path: url, headers: { host: 'mail.example.com' }, agent: false }, (response) => {
      response.resume()
      resolve(response.statusCode === 301 ? response.headers.location : String(response.statusCode))
    }).on('error', () => resolve(undefined)).end()
  })
}

describe('redirects of web servers, as documented', { concurrency: 4 }, () => {
  for (const server of servers) {
    const program = find(server.program)
    test(server.program, { skip: program === undefined ? `needs ${server.program}` : false }, async () => {
      assert.ok(program !== undefined)
      const lines = new RegExp(`^\`\`\`${server.block}\n([^]*?)^\`\`\`$`, 'mu').exec(document)?.[1]
      assert.ok(lines !== undefined, `no code block for ${server.block} in docs/remote-hosts.md`)
      const directory = await mkdtemp(join(tmpdir(), `lematt-${server.program}-`))
      const port = await freePort()
      const config = join(directory, 'config')
      await writeFile(config, server.config(lines, port, directory, program))
      const child = spawn(program, server.args(config),
        { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, HOME: directory } })
      let errors = ''
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        errors += text
      })
      const ended = new Promise((resolve) => child.once('close', resolve))
      try {
        await until(async () => {
          if (child.exitCode !== null) throw new Error(`${server.program} ended with ${child.exitCode}: ${errors}`)
          return await location(port, path) !== undefined
        }, { what: `${server.program} answers` })
        assert.equal(await location(port, path), `http://central.example${path}`)
        // Nothing else goes there, nor can a request make it lead anywhere else.
        assert.equal(await location(port, '/'), 'https://mail.example.com/')
        assert.equal(await location(port, '/.well-known/other'), 'https://mail.example.com/.well-known/other')
        for (const trick of ['@evil.example', '%0d%0aX-Evil:%201', '//evil.example/']) {
          const to = await location(port, `/.well-known/acme-challenge/${trick}`)
          assert.match(to ?? '', /^(?:http:\/\/central\.example\/\.well-known\/acme-challenge\/|40\d$)/u, trick)
        }
      } finally {
        child.kill('SIGTERM')
        await ended
        await rm(directory, { recursive: true, force: true })
      }
    })
  }
})
