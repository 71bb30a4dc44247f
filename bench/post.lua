-- What wrk sends, and how it says what came of it. Its arguments: the key, the body, and for a check of each
-- answer the text that all of it has at its end.

local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function init(args)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Authorization"] = "Bearer " .. args[1]
  wrk.body = args[2]
  wrong = 0
  local expected = args[3]
  -- It costs wrk more than all the rest, so answers are looked at in a pass of their own.
  if expected then
    response = function(status, _, body)
      if status ~= 200 or not body:find(expected, 1, true) then
        wrong = wrong + 1
      end
    end
  end
end

function done(summary)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  for _, thread in ipairs(threads) do
    failed = failed + thread:get("wrong")
  end
  print(string.format(
    '{"answers": %d, "seconds": %f, "failed": %d}',
    summary.requests, summary.duration / 1e6, failed
  ))
end
