-- Wireshark and tshark dissectors for a ward gateway (edge/PROTOCOL.md, vitals/frame.py).
--
-- Law: nothing of a patient stands in the tree or the info column unless the preference "Show
-- patient fields" is on (it is off): names of fields and lengths only, vital signs included.
-- The bytes themselves are in the capture all the same; treat it as a patient's record.
-- Whatever bytes come, this raises no error and takes no more than the packet's length in time.
--
--   hsline   the line protocol, text and JSON form, and its answers        tcp 7010
--   hsmllp   HL7 v2 in MLLP: counts, MSH-9, MSH-10, MSA; then hl7 itself   tcp 2575
--   hsframe  the clear header of a sealed frame, in the uplink's websocket tcp 7020
--
-- Runs on Lua 5.2 (Wireshark 4.0) to 5.4. Install: see edge/RUNBOOK.md.

local LINE_BYTES_MAX = 8192           -- vitals/limits.py LINE_BYTES_MAX
local MESSAGE_BYTES_MAX = 1024 * 1024 -- vitals/limits.py HL7_MESSAGE_BYTES_MAX
local FIELDS_MAX = 64                 -- vitals/limits.py LINE_FIELDS_MAX
local PORT_LINE, PORT_MLLP, PORT_UPLINK = 7010, 2575, 7020 -- vitals/ports.py

-- What may be shown of a line: everything else is a patient's, or an unknown word.
local OPEN = { device = true, time = true, reply = true, status = true, site = true }

-- Another dissector on the same bytes. What it can not read ends its own tree, and nothing else.
local function hand_over(dissector, tvb, pinfo, tree)
  local done, taken = pcall(dissector.call, dissector, tvb, pinfo, tree)
  return done and taken or tvb:len()
end

-- ---------------------------------------------------------------- lines

local line = Proto("hsline", "IoT Health Sync line")
line.prefs.show_patient = Pref.bool("Show patient fields", false,
    "Values of vital signs, names and record numbers; off: their lengths only")

local L = {
  length = ProtoField.uint32("hsline.length", "Bytes", base.DEC),
  form = ProtoField.string("hsline.form", "Form"),
  device = ProtoField.string("hsline.device", "Device"),
  key = ProtoField.string("hsline.key", "Field"),
  value = ProtoField.string("hsline.value", "Value"),
  value_length = ProtoField.uint32("hsline.value_length", "Value's bytes", base.DEC),
  fields = ProtoField.uint32("hsline.fields", "Fields", base.DEC),
  answer = ProtoField.string("hsline.answer", "Answer"),
  reason = ProtoField.string("hsline.reason", "Reason"),
  field = ProtoField.string("hsline.field", "Refused field"),
}
line.fields = { L.length, L.form, L.device, L.key, L.value, L.value_length, L.fields, L.answer,
                L.reason, L.field }
local long_line = ProtoExpert.new("hsline.too_long", "Line over 8192 bytes", expert.group.MALFORMED,
                                  expert.severity.WARN)
line.experts = { long_line }

-- The next field of the text form: key, value, and where value and field lie.
local function text_field(text, at)
  local from = text:find("[^,%s]", at)
  if not from then return nil end
  local key, stop = text:match('^([^=,%s"]+)=()', from)
  if not key then
    return { key = "", from = from, to = text:match("^[^,%s]+()", from) or #text + 1 }
  end
  local quote = text:match('^"', stop)
  local to
  if quote then
    local look = stop + 1
    while true do
      local hit = text:find('[\\"]', look)
      if not hit then to = #text + 1 break end
      if text:sub(hit, hit) == '"' then to = hit + 1 break end
      look = hit + 2
    end
  else
    to = text:match("^[^,%s]*()", stop)
  end
  return { key = key:lower(), from = from, value_from = stop, to = to }
end

-- The next member of a flat JSON object, likewise.
local function json_field(text, at)
  local from, key, stop = text:match('()"([%w_%-%%]*)"%s*:%s*()', at)
  if not from then return nil end
  local to
  if text:match('^"', stop) then
    local look = stop + 1
    while true do
      local hit = text:find('[\\"]', look)
      if not hit then to = #text + 1 break end
      if text:sub(hit, hit) == '"' then to = hit + 1 break end
      look = hit + 2
    end
  else
    to = text:match("^[^,}%s]*()", stop)
  end
  return { key = key:lower(), from = from, value_from = stop, to = to }
end

local function one_line(range, tree)
  local text = range:raw():gsub("[\r\n]+$", "")
  local json = text:match("^%s*{") ~= nil
  local item = tree:add(line, range, "Line, " .. range:len() .. " bytes")
  item:add(L.length, range, #text)
  item:add(L.form, range, json and "json" or "text")
  if #text > LINE_BYTES_MAX then
    item:add_proto_expert_info(long_line)
    return nil
  end
  local next_field, at, count, device = json and json_field or text_field, 1, 0, nil
  while count < FIELDS_MAX do
    local found = next_field(text, at)
    if not found then break end
    at, count = found.to, count + 1
    local width = found.to - found.from
    local where = range(found.from - 1, width)
    if found.key == "" then
      item:add(L.key, where, "?"):append_text(" (no key=value, " .. width .. " bytes)")
    else
      local value = text:sub(found.value_from, found.to - 1)
      local shown = OPEN[found.key] or line.prefs.show_patient
      -- A key is what a sender typed: a patient's name may stand before "=" by mistake.
      local key = found.key:match("^[%w_%-%%]+$") and #found.key <= 24 and found.key or "?"
      local sub = item:add(L.key, where, key)
      sub:add(L.value_length, where, #value):set_generated()
      if shown then
        value = value:gsub('^"(.*)"$', "%1")
        sub:add(L.value, where, value)
        sub:append_text(": " .. value)
      else
        sub:append_text(": " .. #value .. " bytes, hidden")
      end
      if found.key == "device" then
        device = value
        item:add(L.device, where, value)
      end
    end
  end
  item:add(L.fields, range, count):set_generated()
  return device
end

local function one_answer(range, tree)
  local text = range:raw():gsub("[\r\n]+$", "")
  local item = tree:add(line, range, "Answer")
  local word, reason, field = text:match("^(rejected) ([%w%-]+):? ?([%w_%-%%]*)")
  word = word or text:match("^ok$") or text:match("^refused") or "?"
  item:add(L.answer, range, word)
  if reason then
    item:add(L.reason, range, reason)
    if field ~= "" and field ~= "-" then item:add(L.field, range, field) end
  end
  return word .. (reason and " " .. reason or "")
end

function line.dissector(tvb, pinfo, tree)
  local input = pinfo.dst_port == pinfo.match
  local top = tree:add(line, tvb())
  local at, count, words = 0, 0, {}
  local raw = tvb:raw()
  while at < tvb:len() do
    local stop = raw:find("\n", at + 1, true)
    if not stop then
      if tvb:len() - at <= LINE_BYTES_MAX then
        pinfo.desegment_offset = at
        pinfo.desegment_len = DESEGMENT_ONE_MORE_SEGMENT
        break
      end
      stop = tvb:len()
    end
    local range = tvb(at, stop - at)
    local word = (input and one_line or one_answer)(range, top)
    if word and #words < 4 then words[#words + 1] = word end
    at, count = stop, count + 1
  end
  pinfo.cols.protocol = "HS-LINE"
  local what = input and " line(s) " or " answer(s) "
  pinfo.cols.info = count .. what .. table.concat(words, ", ")
  top:append_text(", " .. count .. what)
  return tvb:len()
end

-- ---------------------------------------------------------------- MLLP

local mllp = Proto("hsmllp", "IoT Health Sync MLLP")
local M = {
  messages = ProtoField.uint32("hsmllp.messages", "Messages in this packet", base.DEC),
  length = ProtoField.uint32("hsmllp.length", "Bytes", base.DEC),
  segments = ProtoField.uint32("hsmllp.segments", "Segments", base.DEC),
  observations = ProtoField.uint32("hsmllp.obx", "OBX segments", base.DEC),
  type = ProtoField.string("hsmllp.type", "Type (MSH-9)"),
  id = ProtoField.string("hsmllp.control_id", "Control id (MSH-10)"),
  ack = ProtoField.string("hsmllp.ack", "Acknowledgement (MSA-1)"),
  acked = ProtoField.string("hsmllp.acked_id", "Of message (MSA-2)"),
}
mllp.fields = { M.messages, M.length, M.segments, M.observations, M.type, M.id, M.ack, M.acked }
local noise = ProtoExpert.new("hsmllp.noise", "Bytes outside a message", expert.group.MALFORMED,
                              expert.severity.WARN)
mllp.experts = { noise }
-- Wireshark's own dissector of HL7 has no name to get it by, but the port.
local hl7 = DissectorTable.get("tcp.port"):get_dissector(PORT_MLLP)

-- Field n of a segment, by its own separator; MSH-1 is the separator itself.
local function hl7_field(segment, separator, n)
  if segment:sub(1, 3) == "MSH" then n = n - 1 end
  local at = 1
  for _ = 1, n do
    at = segment:find(separator, at, true)
    if not at then return "" end
    at = at + 1
  end
  local stop = segment:find(separator, at, true)
  return segment:sub(at, (stop or #segment + 1) - 1)
end

local function one_message(range, tree)
  local text = range:raw():gsub("^\11", ""):gsub("\28\r?$", "")
  local item = tree:add(mllp, range, "HL7 message")
  item:add(M.length, range, #text)
  local separator = text:match("^MSH(.)")
  if not separator then
    item:add_proto_expert_info(noise, "no MSH segment")
    return "no MSH"
  end
  local segments, observations, words = 0, 0, {}
  for segment in text:gmatch("[^\r\n]+") do
    segments = segments + 1
    local name = segment:sub(1, 3)
    if name == "OBX" then
      observations = observations + 1
    elseif name == "MSH" then
      local kind, id = hl7_field(segment, separator, 9), hl7_field(segment, separator, 10)
      item:add(M.type, range, kind)
      item:add(M.id, range, id)
      words[#words + 1] = kind .. " " .. id
    elseif name == "MSA" then
      local code = hl7_field(segment, separator, 1)
      item:add(M.ack, range, code)
      item:add(M.acked, range, hl7_field(segment, separator, 2))
      words[#words + 1] = code
    end
  end
  item:add(M.segments, range, segments)
  item:add(M.observations, range, observations)
  item:append_text(", " .. observations .. " OBX")
  return table.concat(words, " ")
end

function mllp.dissector(tvb, pinfo, tree)
  local top = tree:add(mllp, tvb())
  local raw, at, count, words = tvb:raw(), 0, 0, {}
  pinfo.cols.protocol = "HS-MLLP"
  while at < tvb:len() do
    local start = raw:find("\11", at + 1, true)
    if start ~= at + 1 then
      local stop = (start or tvb:len() + 1) - 1
      if raw:find("[^%s]", at + 1) and raw:find("[^%s]", at + 1) <= stop then
        top:add_proto_expert_info(noise, (stop - at) .. " bytes outside a message")
      end
      at = stop
    else
      local stop = raw:find("\28\r", start, true)
      if not stop then
        if tvb:len() - at <= MESSAGE_BYTES_MAX then
          pinfo.desegment_offset = at
          pinfo.desegment_len = DESEGMENT_ONE_MORE_SEGMENT
        end
        break
      end
      local range = tvb(at, stop + 1 - at)
      local word = one_message(range, top)
      if #words < 4 then words[#words + 1] = word end
      count = count + 1
      if hl7 and line.prefs.show_patient then hand_over(hl7, range:tvb(), pinfo, tree) end
      at = stop + 1
    end
  end
  top:add(M.messages, tvb(), count):set_generated()
  top:append_text(", " .. count .. " message(s)")
  pinfo.cols.info = count .. " message(s) " .. table.concat(words, ", ")
  return tvb:len()
end

-- ---------------------------------------------------------------- frames

local frame = Proto("hsframe", "IoT Health Sync sealed frame")
local F = {
  version = ProtoField.uint32("hsframe.version", "Version", base.DEC),
  edge = ProtoField.string("hsframe.edge", "Gateway"),
  epoch = ProtoField.string("hsframe.epoch", "Epoch"),
  seq = ProtoField.uint64("hsframe.seq", "Sequence number", base.DEC),
  key_id = ProtoField.string("hsframe.key_id", "Key id"),
  lane = ProtoField.uint32("hsframe.lane", "Lane", base.DEC,
                           { [0] = "live", [1] = "backlog", [2] = "quarantine" }),
  first = ProtoField.absolute_time("hsframe.first", "First received", base.UTC),
  last = ProtoField.absolute_time("hsframe.last", "Last received", base.UTC),
  count = ProtoField.uint32("hsframe.count", "Readings or refused inputs", base.DEC),
  sealed = ProtoField.uint32("hsframe.sealed", "Sealed bytes", base.DEC),
}
frame.fields = { F.version, F.edge, F.epoch, F.seq, F.key_id, F.lane, F.first, F.last, F.count,
                 F.sealed }
local cut = ProtoExpert.new("hsframe.cut", "Header does not parse", expert.group.MALFORMED,
                            expert.severity.ERROR)
frame.experts = { cut }

-- One msgpack text or unsigned integer at offset: value, bytes taken. Nil for anything else.
local function msgpack(range, at)
  if at >= range:len() then return nil end
  local kind = range(at, 1):uint()
  local function left(n) return at + n <= range:len() end
  if kind <= 0x7f then return UInt64(kind), 1 end
  if kind == 0xcc and left(2) then return UInt64(range(at + 1, 1):uint()), 2 end
  if kind == 0xcd and left(3) then return UInt64(range(at + 1, 2):uint()), 3 end
  if kind == 0xce and left(5) then return UInt64(range(at + 1, 4):uint()), 5 end
  if kind == 0xcf and left(9) then return range(at + 1, 8):uint64(), 9 end
  local size, head
  if kind >= 0xa0 and kind <= 0xbf then size, head = kind - 0xa0, 1 end
  if kind == 0xd9 and left(2) then size, head = range(at + 1, 1):uint(), 2 end
  if not size or not left(head + size) then return nil end
  return size == 0 and "" or range(at + head, size):string(), head + size
end

local KINDS = { "number", "text", "text", "number", "text", "number", "number", "number", "number" }

-- Adds the header to the tree; returns a word of it, or nil. ``total``: the whole frame's bytes.
local function sealed_frame(range, tree, total)
  local item = tree:add(frame, range)
  if range:len() < 7 then item:add_proto_expert_info(cut) return nil end
  local size = range(4, 2):uint()
  if size < 1 or 6 + size > range:len() then item:add_proto_expert_info(cut) return nil end
  local header, at, values, places = range(6, size), 1, {}, {}
  for n, wanted in ipairs(KINDS) do
    local value, taken = msgpack(header, at)
    local kind = value and (type(value) == "string" and "text" or "number")
    if kind ~= wanted then item:add_proto_expert_info(cut) return nil end
    values[n], places[n] = value, header(at, taken)
    at = at + taken
  end
  local function moment(ms)
    return NSTime.new((ms / 1000):tonumber(), ((ms % 1000):tonumber()) * 1000000)
  end
  local seq = values[4]
  item:add(F.version, places[1], values[1]:tonumber())
  item:add(F.edge, places[2], values[2])
  item:add(F.epoch, places[3], values[3])
  item:add(F.seq, places[4], seq)
  item:add(F.key_id, places[5], values[5])
  item:add(F.lane, places[6], values[6]:tonumber())
  item:add(F.first, places[7], moment(values[7]))
  item:add(F.last, places[8], moment(values[8]))
  item:add(F.count, places[9], values[9]:tonumber())
  item:add(F.sealed, range, total - 6 - size):set_generated()
  item:append_text(", seq " .. tostring(seq) .. ", " .. values[9]:tonumber() .. " inside")
  return "frame " .. values[2] .. " " .. tostring(seq)
end

-- ---------------------------------------------------------------- the uplink's websocket

-- Read here and not by Wireshark's own dissector: that one knows the port of a websocket only
-- when the capture has its HTTP request, and a technician's begins in the middle.
local uplink = Proto("hsuplink", "IoT Health Sync uplink")
local U = {
  message = ProtoField.string("hsuplink.message", "Message"),
  length = ProtoField.uint32("hsuplink.length", "Bytes", base.DEC),
}
uplink.fields = { U.message, U.length }
local http = Dissector.get("http")
local WEBSOCKET_BYTES_MAX = 1114112 -- vitals/limits.py SESSION_MESSAGE_BYTES_MAX
local UNMASKED_BYTES_MAX = 4096 -- a frame's header, 1024 bytes at most, and what stands before it
local OPCODES = { [0x01] = "text", [0x02] = "binary", [0x08] = "close", [0x09] = "ping",
                  [0x0a] = "pong" }
local xor = bit32 and bit32.bxor or load("return function(a, b) return a ~ b end")()

-- Lengths of the head and of the payload of the websocket frame at offset (RFC 6455 section 5.2),
-- and where its mask lies. Nil when it is none; false when more bytes are needed.
local function websocket(tvb, at)
  local left = tvb:len() - at
  if left < 2 then return false end
  local first, second = tvb(at, 1):uint(), tvb(at + 1, 1):uint()
  local opcode = OPCODES[first - 0x80]
  if not opcode then return nil end
  local masked, size, head = second >= 0x80, second % 0x80, 2
  if size == 126 then head = 4 elseif size == 127 then head = 10 end
  local mask = head
  if masked then head = head + 4 end
  if left < head then return false end
  if size == 126 then size = tvb(at + 2, 2):uint() end
  if size == 127 then
    if tvb(at + 2, 4):uint() ~= 0 then return nil end
    size = tvb(at + 6, 4):uint()
  end
  if size > WEBSOCKET_BYTES_MAX then return nil end
  return head, size, masked and at + mask or nil, opcode
end

-- The payload in clear. A frame's bytes stay sealed: only its header can be read.
local function unmasked(range, mask)
  if not mask then return range:tvb() end
  local key, raw, clear = { mask:raw():byte(1, 4) }, range:raw(), {}
  for at = 1, #raw do
    clear[at] = string.format("%02x", xor(raw:byte(at), key[(at - 1) % 4 + 1]))
  end
  return ByteArray.new(table.concat(clear)):tvb("Unmasked")
end

-- A message of the session (vitals/session.py): {"t": its name, ...}.
local function one_session_message(tvb, length, tree, item)
  local raw = tvb:raw()
  local name = raw:match("\161t[\160-\191](%l+)")
  if not name then return nil end
  item:add(U.message, tvb(), name)
  local found = name:sub(1, 4) == "data" and raw:find("HSF1", 1, true)
  if not found then return name end
  -- msgpack's bin 8, 16 or 32 before it has its length; the message goes on behind it.
  local at, total = found - 1, length - found + 1
  for width, kind in pairs({ [1] = 0xc4, [2] = 0xc5, [4] = 0xc6 }) do
    if at > width and tvb(at - width - 1, 1):uint() == kind then
      local size = tvb(at - width, width):uint()
      if size >= 4 and size <= total then total = size end
    end
  end
  return sealed_frame(tvb(at, math.min(total, tvb:len() - at)), tree, total) or "data"
end

function uplink.dissector(tvb, pinfo, tree)
  local head = tvb:raw(0, math.min(4, tvb:len()))
  if head == "GET " or head == "HTTP" then return hand_over(http, tvb, pinfo, tree) end
  local top, at, words = tree:add(uplink, tvb()), 0, {}
  pinfo.cols.protocol = "HS-UPLINK"
  while at < tvb:len() do
    local size, length, mask, opcode = websocket(tvb, at)
    if size == nil then break end -- the middle of a message whose beginning was not captured
    if size == false or at + size + length > tvb:len() then
      pinfo.desegment_offset = at
      pinfo.desegment_len = size and at + size + length - tvb:len() or DESEGMENT_ONE_MORE_SEGMENT
      break
    end
    local item = top:add(uplink, tvb(at, size + length), opcode)
    item:add(U.length, tvb(at, size), length)
    if opcode == "binary" and length > 0 then
      local beginning = tvb(at + size, math.min(length, UNMASKED_BYTES_MAX))
      local clear = unmasked(beginning, mask and tvb(mask, 4))
      local word = one_session_message(clear, length, tree, item)
      if #words < 4 then words[#words + 1] = word end
    end
    at = at + size + length
  end
  pinfo.cols.info = table.concat(words, ", ")
  return tvb:len()
end

local tcp = DissectorTable.get("tcp.port")
tcp:add(PORT_LINE, line)
tcp:add(PORT_MLLP, mllp)
tcp:add(PORT_UPLINK, uplink)
