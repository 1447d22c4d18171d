-- Whether a request to a page has the session of a user of Airflow who may read Connections: an Op or an Admin. Airflow
-- is asked, by the frontend airflow_sessions of haproxy.cfg. `txn.session` is then
--   accepted   the user may open the pages
--   refused    the user may not
--   none       there is no session, or it has ended: `txn.log_in` is the address of Airflow's log-in, if that helps
-- and not set where Airflow does not answer.

local KEPT_SECONDS = 30
local MOST_KEPT = 1000
-- Until when an accepted session is not asked about again, by its hash. Only Airflow's yes adds one.
local kept, number = {}, 0

local function is_kept(hash, now)
    local until_then = kept[hash]
    return until_then ~= nil and until_then > now
end

local function keep(hash, now)
    if number >= MOST_KEPT then
        kept, number = {}, 0
    end
    if kept[hash] == nil then
        number = number + 1
    end
    kept[hash] = now + KEPT_SECONDS
end

-- With its 403 Airflow deletes the cookie of a session that has ended, and not that of a user without the right.
local function deletes_cookie(answer)
    for _, value in pairs((answer.headers or {})["set-cookie"] or {}) do
        if value:match('^_token=""') then
            return true
        end
    end
    return false
end

local function ask(token)
    local answer = core.httpclient():get({
        url = "http://127.0.0.1:8408/",
        headers = { cookie = { "_token=" .. token } },
        timeout = 4000,
    })
    if answer.status == 200 then
        return "accepted"
    elseif answer.status == 401 or answer.status == 403 and deletes_cookie(answer) then
        return "none"
    elseif answer.status == 403 then
        return "refused"
    end
    return nil
end

-- The cookie belongs to a host name: a log-in helps only under the one by which the browser opened the page.
local function log_in_address(host, scheme)
    local name = host:lower():gsub(":%d+$", "")
    local airflow = os.getenv("AIRFLOW_URL") or ""
    if airflow == "" then
        airflow = scheme .. "://" .. name .. ":" .. os.getenv("AIRFLOW_PORT")
    elseif airflow:lower():gsub("^%a+://", ""):gsub("/.*$", ""):gsub(":%d+$", "") ~= name then
        return nil
    end
    return (airflow:gsub("/+$", "")) .. "/auth/login/"
end

core.register_action("check_airflow_session", { "http-req" }, function(txn)
    local token = txn.f:req_cook("_token") or ""
    if #token > 4096 or not token:match("^[%w_.-]*$") then
        token = ""
    end
    local hash = txn.c:sha2(token, 256)
    local now = core.now().sec
    local session = "accepted"
    if token == "" or not is_kept(hash, now) then
        session = ask(token)
        -- Never longer because of its use: a session that has ended would stay as long as a page asks.
        if session == "accepted" and token ~= "" then
            keep(hash, now)
        end
    end
    if session ~= nil then
        txn:set_var("txn.session", session)
    end
    local scheme = txn:get_var("txn.is_https") and "https" or "http"
    local log_in = session == "none" and log_in_address(txn.f:req_hdr("Host") or "", scheme)
    if log_in then
        txn:set_var("txn.log_in", log_in)
    end
end)
