/** Bounded parallelism, by p-queue: `new Queue({ concurrency })`, `add`, `onIdle`. */
export { default as Queue } from 'p-queue'
