// The `load` contract on npm socket.io, alone: node server.js PORT
import { serve } from "./contract.js";

serve(Number(process.argv[2] ?? 3000));
