/** build/bundle.ts replaces these, so they exist on every version of Node that runs what it builds. */
interface ImportMeta {
  dirname: string;
  filename: string;
}
