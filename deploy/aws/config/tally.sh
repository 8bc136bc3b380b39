# Counts the monitor's verdicts once a minute, a line each time, for CloudWatch: tally VIOLATED UNPROVEN HOLDS
# A monitor that does not answer has no line, and a line that is missing is an alarm: never "0 violated".
# Nor is that said before every check has run once, for a monitor that was started anew does not know what was open before.
# What was open for one run, and shut again within the minute, is in no verdict: the counter of runs tells of it.
trap 'exit 0' TERM INT
runs=0
while :; do
    set -- $(wget -q -T 10 -O - http://127.0.0.1:9890/metrics | awk -v runs="$runs" '
        /^mustnot_check_verdict[{]/ && $NF == 1 && match($0, /verdict="[a-z]+"/) { seen[substr($0, RSTART + 9, RLENGTH - 10)]++; all++ }
        /^mustnot_check_runs_total[{].*verdict="violated"/ { now += $NF }
        /^mustnot_check_cause[{]/ && /[{,]cause="pending"/ { pending++ }
        END {
            if (!all) exit
            violated = seen["violated"] + (!seen["violated"] && now > runs)
            if (violated || !pending) print now + 0, "tally", violated, seen["unproven"] + 0, seen["holds"] + 0
        }')
    if [ $# = 5 ]; then
        runs=$1
        shift
        echo "$@"
    fi
    sleep "${TALLY_SECONDS:-60}" &
    wait $!
done
