-- Posts the lines of a file in turn, one a request; the requests are formatted before the clock
-- starts. Usage: wrk -s post.lua URL -- FILE
local requests, at = {}, 0

function init(args)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  for line in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format(nil, nil, nil, line)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
