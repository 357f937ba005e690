/** `dev/hub-chunk.ts` */
declare module "virtual:hub-url" {
  const url: string;
  export default url;
}
