# In place of ssh: DIR HOST COMMAND... It plays a host: reads the request, takes some time, prints a report, and writes down when it
# began and ended. What a host does otherwise stands in DIR/before/HOST and DIR/behave/HOST; its lock is DIR/lock/HOST.
dir=$1 host=$2
shift 2
echo "+ $host" >>"$dir/log"

end() {
    echo "- $host" >>"$dir/log"
    exit "$1"
}
# CODE SERVICES [FAILURE]
report() {
    echo "{\"exit_code\":$1,\"services\":\"$2\",\"state\":\"the state\",\"failures\":[${3:+\"$3\"}]}"
    end "$1"
}
# The restart itself: one at a time on a host, and none if there was one since the time that the request names.
restart() {
    exec 9>"$dir/lock/$host"
    flock 9
    case $request in
        *unless_restarted_since*) [ ! -e "$dir/restarted/$host" ] || report 0 untouched ;;
    esac
    sleep "$1" 9>&-
    echo "$host" >>"$dir/restarts"
    : >"$dir/restarted/$host"
    report 0 done
}

[ ! -e "$dir/before/$host" ] || . "$dir/before/$host"
request=$(cat)
echo "$host $request" >>"$dir/requests"
echo "$*" >"$dir/command"
[ ! -e "$dir/behave/$host" ] || . "$dir/behave/$host"
# Between 0 and 90 ms, by the last digit of the host's number.
number=${host#mw}
number=${number%%.*}
restart "0.0${number#"${number%?}"}"
