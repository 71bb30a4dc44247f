"""
How limits are kept by a server that several daemons share: scripts, each of which is one step for
all of them.

They go by the server's clock, in microseconds, and money is in millionths. A rate is the time at
which all of it is there again, as in L{gemproxy.accounts.rate}. What the server does not know,
because it was started anew, a daemon may still know: of rates and sums that is told with each
question.
"""

from __future__ import annotations

from gemproxy.state.shared import Script

_RATES = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local MINUTE = 60000000

local function full_at(key, otherwise)
    local kept = redis.call('GET', key)
    return math.max(now, kept and tonumber(kept) or now + otherwise)
end

local function keep(key, at)
    local lasts = math.ceil((at - now) / 1000) + 1
    redis.call('SET', key, string.format('%.17g', at), 'PX', lasts)
end

local function sum(key, name, least)
    return math.max(tonumber(redis.call('HGET', key, name) or 0), tonumber(least))
end
"""

GRANTED, TOO_MANY_AT_ONCE, REQUESTS, TOKENS, BUDGETS = range(5)
"""What L{BEGIN} may answer first; a budget that is used up is its number after the last of them."""

BEGIN = Script(
    _RATES
    + """
-- Whether a request may begin, which is counted then.
-- KEYS: requests a minute, tokens a minute, leases, sums of the day, sums of the month
-- ARGV: 1 requests a minute (0: any number), 2 microseconds until all of them are there,
--   3 tokens a minute, 4 likewise, 5 requests at once, 6 the name of the lease,
--   7 its microseconds, 8 to 11 tokens and money of the day and of the month;
--   then for each budget: which of these four it is for, and how much
local requests_limit, tokens_limit = tonumber(ARGV[1]), tonumber(ARGV[3])
local concurrent = tonumber(ARGV[5])
local verdict, wait = 0, 0
local requests, tokens, sums = now, now, {0, 0, 0, 0}

local function check(at, limit, refusal)
    local over = at - now - MINUTE + MINUTE / limit
    if verdict == 0 and over > 1 then
        verdict, wait = refusal, over
    end
end

if concurrent > 0 then
    redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
    if redis.call('ZCARD', KEYS[3]) >= concurrent then
        verdict = 1
    end
end
if requests_limit > 0 then
    requests = full_at(KEYS[1], ARGV[2])
    check(requests, requests_limit, 2)
end
if tokens_limit > 0 then
    tokens = full_at(KEYS[2], ARGV[4])
    check(tokens, tokens_limit, 3)
end
if #ARGV > 11 then
    sums = {
        sum(KEYS[4], 'tokens', ARGV[8]), sum(KEYS[4], 'money', ARGV[9]),
        sum(KEYS[5], 'tokens', ARGV[10]), sum(KEYS[5], 'money', ARGV[11])
    }
    for index = 12, #ARGV, 2 do
        if verdict == 0 and sums[tonumber(ARGV[index])] >= tonumber(ARGV[index + 1]) then
            verdict = 4 + (index - 12) / 2
        end
    end
end
if verdict == 0 then
    if requests_limit > 0 then
        requests = requests + MINUTE / requests_limit
        keep(KEYS[1], requests)
    end
    if concurrent > 0 then
        redis.call('ZADD', KEYS[3], string.format('%.0f', now + ARGV[7]), ARGV[6])
        redis.call('PEXPIRE', KEYS[3], math.ceil(ARGV[7] / 1000))
    end
end
return {verdict, math.ceil(wait), requests - now, tokens - now, unpack(sums)}
"""
)

CHARGE = Script(
    _RATES
    + """
-- What was taken meanwhile, or is known at the end of a request.
-- KEYS: requests a minute, tokens a minute, sums of the day, sums of the month
-- ARGV: 1 requests a minute (0: any number), 2 microseconds until all of them are there if this is
--   counted, 3 requests; 4 tokens a minute, 5 likewise, 6 tokens; 7 whether there are sums;
--   8 to 11 tokens and money of the day and of the month if this is counted, 12 tokens, 13 money
local function take(key, limit, otherwise, number)
    limit, number = tonumber(limit), tonumber(number)
    if limit == 0 then
        return 0
    end
    local at = now + otherwise
    if redis.call('EXISTS', key) == 1 then
        at = math.max(now, full_at(key, 0) + number * MINUTE / limit)
    end
    keep(key, at)
    return at - now
end

local function add(key, name, least, number, days)
    local sum = math.max(sum(key, name, 0) + number, tonumber(least))
    redis.call('HSET', key, name, string.format('%.0f', sum))
    redis.call('EXPIRE', key, days * 86400)
    return sum
end

local known = {
    take(KEYS[1], ARGV[1], ARGV[2], ARGV[3]), take(KEYS[2], ARGV[4], ARGV[5], ARGV[6]), 0, 0, 0, 0
}
if ARGV[7] == '1' then
    known[3] = add(KEYS[3], 'tokens', ARGV[8], ARGV[12], 2)
    known[4] = add(KEYS[3], 'money', ARGV[9], ARGV[13], 2)
    known[5] = add(KEYS[4], 'tokens', ARGV[10], ARGV[12], 40)
    known[6] = add(KEYS[4], 'money', ARGV[11], ARGV[13], 40)
end
return known
"""
)

RENEW = Script(
    _RATES
    + """
-- KEYS: leases. ARGV: their microseconds from now on, and their names
local ends = string.format('%.0f', now + ARGV[1])
for index = 2, #ARGV do
    redis.call('ZADD', KEYS[1], ends, ARGV[index])
end
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[1] / 1000))
return 0
"""
)

RELEASE = Script("return redis.call('ZREM', KEYS[1], unpack(ARGV))")
