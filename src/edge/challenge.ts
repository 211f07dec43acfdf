/**
 * http-01 (RFC 8555 §8.3): puts key authorizations where the CA will look (in the web server's directory, on a listener of
 * our own, at the end of a tunnel), and fetches them from there as the CA will.
 */
export { answerer, type Answerer } from './challenge/answer.js'
export { checkDropDirectory, dropDirectory } from './challenge/drop.js'
export { fetchChallenge, waitForChallenge, type Fetched, type FetchOptions, type Resolve } from './challenge/fetch.js'
export { listener, type Listener } from './challenge/listen.js'
export { allOf, type Solver } from './challenge/solver.js'
