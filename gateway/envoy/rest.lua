-- What the REST contract wants beyond transcoding: one shape for every error, and no session id that cannot be one.
-- A template: the names after a dollar are filled in by config.py.

-- HTTP status -> body of a failure that no service has put into words.
local FIXED = ${fixed_bodies}
-- Every field of every request, and whether it is a "number", an "object" or something "other".
local FIELDS = ${fields}
-- The fields of each call's body.
local BODIES = ${bodies}
local NOT_A_SESSION = '${session_not_found}'
local LOGIN = "/api/connect"

local function reply(handle, status, body)
  handle:headers():replace(":status", status)
  handle:headers():replace("content-type", "application/json")
  handle:body(true):setBytes(body)
end

local function invalid(detail, field)
  local info = field and ', "info": {"field": "' .. field .. '"}' or ""
  return '{"success": false, "code": "INVALID_ARGUMENT", "detail": "' .. detail .. '"' .. info .. "}"
end

local function wrong_type(field)
  return invalid(field .. ": wrong type or out of range", field)
end

-- The transcoder says where a value has the wrong type, and repeats the value; only a name we know gets out.
local function malformed(text)
  local message = text:match('"detail":"(.-)","success"') or ""
  local field = message:match("^([%w_.]+): invalid value")
    or message:match("^: invalid value Starting an object on a scalar field for type ([%w_]+)")
    or message:match("^: invalid value oneof field '_([%w_]+)' is already set")
  return FIELDS[field] and wrong_type(field) or FIXED["400"]
end

-- How many letters have to be changed, added or left out to turn one word into the other.
local function distance(one, other)
  local row = {}
  for j = 0, #other do row[j] = j end
  for i = 1, #one do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #other do
      local cost = one:byte(i) == other:byte(j) and 0 or 1
      local best = math.min(row[j] + 1, row[j - 1] + 1, diagonal + cost)
      diagonal, row[j] = row[j], best
    end
  end
  return row[#other]
end

-- A name that only the client knows may be anything, a password too: it gets out if it is ours but for a slip.
local function unknown(name, fields)
  if FIELDS[name] then return invalid(name .. ": is not a field of this call", name) end
  if name:find("^[%w_.]+$$") and #name <= 40 then
    for field in pairs(fields) do
      if #field > 3 and distance(name, field) <= 2 then
        return invalid(name .. ": is not a field; " .. field .. " is", name)
      end
    end
  end
  local known = {}
  for field in pairs(fields) do known[#known + 1] = field end
  table.sort(known)
  return invalid("the body has a field that this call does not know; it knows " .. table.concat(known, ", "))
end

-- Both spellings that proto JSON accepts: session_id and sessionId.
local function snake(name)
  return (name:gsub("%u", function(letter) return "_" .. letter:lower() end))
end

-- What is wrong with a body that the transcoder would let pass: it ignores a field that it does not know, so that a slip
-- of the pen would run a bot without its stop loss (calls that set a stake are strict, the others take what a newer
-- client may send), takes "5" for 5, and does not name the field that holds a list.
-- Walks over the keys and no further: JSON that is broken is the transcoder's to refuse.
local function wrong_body(text, fields, strict)
  local at, parents = 1, {}
  local key
  while true do
    local start, _, mark = text:find('(["{}%[%]])', at)
    if not start then return end
    at = start + 1
    if mark == "{" or mark == "[" then
      parents[#parents + 1] = key or ""
      key = nil
    elseif mark == "}" or mark == "]" then
      parents[#parents] = nil
    else
      local stop = at
      while true do
        stop = text:find('["\\]', stop)
        if not stop then return end
        if text:sub(stop, stop) == '"' then break end
        stop = stop + 2
      end
      local value = text:match("^%s*:%s*(.)", stop + 1)
      if value then
        local parent = parents[#parents] or ""
        -- What is inside a value that should be no object is refused with it.
        local name = snake(text:sub(at, stop - 1))
        if parent ~= "" then name = parent .. "." .. name end
        key = name
        if #parents == 1 or (#parents == 2 and fields[parent] == "object") then
          local kind = fields[name]
          if not kind and strict then return unknown(name, fields) end
          if kind and (value == "[" or (kind == "number" and value == '"')) then return wrong_type(name) end
        end
      end
      at = stop + 1
    end
  end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  -- No call is one of HEAD; it gets its 404 or 405 without the body that a reply from here would have.
  if headers:get(":method") == "HEAD" then return end
  -- JSON whatever the client calls it; as application/grpc it would pass by the transcoder.
  headers:replace("content-type", "application/json")
  local id = headers:get("x-session-id")
  if id and (#id > 64 or id:find("[^%w_-]")) then
    headers:remove("x-session-id")
    if headers:get(":path"):match("^[^?]*") ~= LOGIN then
      handle:respond({[":status"] = "404", ["x-http-status"] = "404", ["x-error-body"] = NOT_A_SESSION}, "")
      return
    end
  end
  if headers:get(":method") == "POST" then
    local path = headers:get(":path"):match("^[^?]*")
    for _, call in ipairs(BODIES) do
      if path:find(call.path) then
        local body = handle:body()
        local wrong = body and wrong_body(body:getBytes(0, body:length()), call.fields, call.strict)
        if wrong then
          handle:respond({[":status"] = "400", ["x-http-status"] = "400", ["x-error-body"] = wrong}, "")
        end
        return
      end
    end
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local status, body = headers:get("x-http-status"), headers:get("x-error-body")
  headers:remove("x-http-status")
  headers:remove("x-error-body")
  if status and body then
    reply(handle, status, body)
    return
  end
  status = headers:get(":status")
  if status < "400" then return end
  if headers:get("content-type") ~= "application/json" then
    reply(handle, status, FIXED[status] or FIXED["500"])
  elseif status == "400" then
    -- Envoy's own, with the transcoder's words; no body means that HEAD was asked for.
    local own = handle:body()
    if own then reply(handle, status, malformed(own:getBytes(0, own:length()))) end
  end
end
