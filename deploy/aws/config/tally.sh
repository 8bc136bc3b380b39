# Counts the monitor's verdicts once a minute, a line each time, for CloudWatch: tally VIOLATED UNPROVEN HOLDS
# A monitor that does not answer has no line, and a line that is missing is an alarm: never "0 violated".
trap 'exit 0' TERM INT
while :; do
    wget -q -T 10 -O - http://127.0.0.1:9890/metrics | awk '
        /^mustnot_check_verdict[{]/ && $NF == 1 && match($0, /verdict="[a-z]+"/) { seen[substr($0, RSTART + 9, RLENGTH - 10)]++; all++ }
        END { if (all) print "tally", seen["violated"] + 0, seen["unproven"] + 0, seen["holds"] + 0 }'
    sleep "${TALLY_SECONDS:-60}" &
    wait $!
done
