-- Applies one batch atomically; the offsets come last, so that a failed step leaves them behind
-- the data and the batch is applied again. Values with a head (layout.py) replace only a lesser
-- head. A message is published only when something it tells of was new.
--
-- KEYS: latest and alert hashes, identity strings, mrn and episode strings, recent buckets: they
-- are named in ARGV beside their content (one Redis, no cluster).
-- ARGV[1] channel, ARGV[2] now in seconds, ARGV[3] life of a bucket in seconds, ARGV[4] slack of
-- the index, then steps:
--   H key message n field value ...   newest wins in a hash; answers how many were new
--   S key message value               newest wins in a string; answers 0 or 1
--   P key value                       plain string
--   R index minute key n field value ...  a bucket of the live window
--   U subject                         a subject was seen
--   O field offset                    next offset of a partition

local channel, now, life, slack = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local function newer(challenger, standing)
  if not standing then return true end
  local a, b, c = struct.unpack('>I8I8I4', challenger)
  local x, y, z = struct.unpack('>I8I8I4', standing)
  if a ~= x then return a > x end
  if b ~= y then return b > y end
  return c > z
end

local function tell(message, fresh)
  if fresh > 0 and message ~= '' then redis.call('PUBLISH', channel, message) end
end

local answers = {}
local i = 5
while ARGV[i] do
  local step, key = ARGV[i], ARGV[i + 1]
  if step == 'H' then
    local message, n, fresh = ARGV[i + 2], tonumber(ARGV[i + 3]), 0
    for j = i + 4, i + 3 + 2 * n, 2 do
      if newer(ARGV[j + 1], redis.call('HGET', key, ARGV[j])) then
        redis.call('HSET', key, ARGV[j], ARGV[j + 1])
        fresh = fresh + 1
      end
    end
    tell(message, fresh)
    answers[#answers + 1] = fresh
    i = i + 4 + 2 * n
  elseif step == 'S' then
    local fresh = 0
    if newer(ARGV[i + 3], redis.call('GET', key)) then
      redis.call('SET', key, ARGV[i + 3])
      fresh = 1
    end
    tell(ARGV[i + 2], fresh)
    answers[#answers + 1] = fresh
    i = i + 4
  elseif step == 'P' then
    redis.call('SET', key, ARGV[i + 2])
    i = i + 3
  elseif step == 'R' then
    local minute, bucket, n = ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4])
    for j = i + 5, i + 4 + 2 * n, 2 do
      redis.call('HSET', bucket, ARGV[j], ARGV[j + 1])
    end
    redis.call('EXPIRE', bucket, life)
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    redis.call('ZADD', key, now + life + slack, minute)
    redis.call('EXPIRE', key, life + slack)
    i = i + 5 + 2 * n
  elseif step == 'U' then
    redis.call('SADD', 'subjects', key)
    i = i + 2
  elseif step == 'O' then
    redis.call('HSET', 'offsets:project', key, ARGV[i + 2])
    i = i + 3
  else
    return redis.error_reply('unknown step')
  end
end
return answers
