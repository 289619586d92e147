-- What the REST contract wants beyond transcoding: one shape for every error, and no session id that cannot be one.
-- A template: the names after a dollar are filled in by config.py.

-- HTTP status -> body of a failure that no service has put into words.
local FIXED = ${fixed_bodies}
-- Every field of every request, and whether it is a "number".
local FIELDS = ${fields}
local NOT_A_SESSION = '${session_not_found}'
local LOGIN = "/api/connect"

local function reply(handle, status, body)
  handle:headers():replace(":status", status)
  handle:headers():replace("content-type", "application/json")
  handle:body(true):setBytes(body)
end

-- The transcoder says where a value has the wrong type, and repeats the value; only a name we know gets out.
local function wrong_field(message, metadata)
  local field = message:match("^([%w_.]+): invalid value")
    or message:match("^: invalid value Starting an object on a scalar field for type ([%w_]+)")
    or message:match("^: invalid value oneof field '_([%w_]+)' is already set")
  if not field and message:find("cannot start list", 1, true) then field = metadata and metadata["list_field"] end
  return FIELDS[field] and field
end

local function wrong_type(field)
  return '{"success": false, "code": "INVALID_ARGUMENT", "detail": "' .. field .. ': wrong type or out of range", "info": {"field": "' .. field .. '"}}'
end

-- The transcoder takes "5" for 5, and the contract knows numbers only.
local function quoted_number(text)
  for name in text:gmatch('"([%w_]+)"%s*:%s*"') do
    local field = name:gsub("%u", function(letter) return "_" .. letter:lower() end)
    if FIELDS[field] == "number" then return field end
  end
end

local function malformed(handle, text)
  local field = wrong_field(text:match('"detail":"(.-)","success"') or "", handle:streamInfo():dynamicMetadata():get("gateway"))
  if not field then return FIXED["400"] end
  return wrong_type(field)
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
    local body = handle:body()
    local text = body and body:getBytes(0, body:length()) or ""
    local quoted = quoted_number(text)
    if quoted then
      handle:respond({[":status"] = "400", ["x-http-status"] = "400", ["x-error-body"] = wrong_type(quoted)}, "")
      return
    end
    -- The one mistake for which the transcoder does not name the field: none of ours is a list.
    local field = text:match('"([%w_]+)"%s*:%s*%[')
    if field then handle:streamInfo():dynamicMetadata():set("gateway", "list_field", field) end
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
    if own then reply(handle, status, malformed(handle, own:getBytes(0, own:length()))) end
  end
end
