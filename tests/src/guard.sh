# Ends what a test started, also when the test itself was killed.
#
# Standard input is a pipe from the test process: end of file means that it is gone.
#   started PID SIGNAL   remember PID, which SIGNAL ends
#   ended PID            forget PID
#   send SIGNAL PID      signal it now
# $1 is the directory to remove, or empty.
trap '' HUP INT
running=' '
while read -r verb first second; do
    case $verb in
    started) running="$running$first:$second " ;;
    ended)
        kept=' '
        for entry in $running; do
            [ "${entry%%:*}" = "$first" ] || kept="$kept$entry "
        done
        running=$kept
        ;;
    send) kill -s "$first" "$second" 2>/dev/null ;;
    esac
done

for entry in $running; do
    # A stopped process does not see the signal before it goes on.
    kill -s "${entry#*:}" "${entry%%:*}" 2>/dev/null
    kill -s CONT "${entry%%:*}" 2>/dev/null
done
tries=0
while [ $tries -lt 50 ]; do
    alive=
    for entry in $running; do
        kill -s 0 "${entry%%:*}" 2>/dev/null && alive=yes
    done
    [ -z "$alive" ] && break
    tries=$((tries + 1))
    sleep 0.1
done
for entry in $running; do
    kill -s KILL "${entry%%:*}" 2>/dev/null
done
# A server's last child may still be writing into it.
tries=0
while [ -n "$1" ] && [ -e "$1" ] && [ $tries -lt 50 ]; do
    rm -rf "$1" 2>/dev/null && break
    tries=$((tries + 1))
    sleep 0.1
done
