//! Handlers of named events.

type Handlers = { [event: string]: (...args: never[]) => void };

/** Keeps the handlers of events. */
export class Emitter<Events extends { [E in keyof Events]: Handlers[string] }> {
  readonly #handlers = new Map<keyof Events, Set<Handlers[string]>>();

  /** Calls `handler` for each such event. Returns the function that ends it. */
  on<E extends keyof Events>(event: E, handler: Events[E]): () => void {
    const handlers = this.#handlers.get(event) ?? new Set();
    this.#handlers.set(event, handlers.add(handler));
    return () => void handlers.delete(handler);
  }

  /** Calls the handlers. One that throws does not keep the others from theirs; its error is reported as uncaught. */
  protected emit<E extends keyof Events>(event: E, ...args: Parameters<Events[E]>): void {
    for (const handler of [...(this.#handlers.get(event) ?? [])]) {
      try {
        handler(...(args as never[]));
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
