-- Sends the bodies in turn. Arguments: folder, number of bodies, then names and values of headers.
local requests, turn, count = {}, 0, 0

function init(args)
  count = tonumber(args[2])
  wrk.method = "POST"
  for index = 3, #args, 2 do
    wrk.headers[args[index]] = args[index + 1]
  end
  for index = 1, count do
    local file = assert(io.open(args[1] .. "/" .. (index - 1), "rb"))
    requests[index] = wrk.format(nil, nil, nil, file:read("*a"))
    file:close()
  end
end

function request()
  turn = turn % count + 1
  return requests[turn]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "refused": %d, "broken": %d, "p50_ms": %f, "p99_ms": %f}\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
