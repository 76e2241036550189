#!/bin/bash
# From the real keepalived to a program and back, under traffic: takeover.sh PROGRAM [ARGUMENT]...
# /mnt/share/takeover gets, for each change, the services before and after it, and in `counts`
# what the client met: new connections answered and not, and how often the old one broke.
out=/mnt/share/takeover
mkdir -p $out
ip link set lo up
modprobe ip_vs
ipvsadm -C
echo 1 > /proc/sys/net/ipv4/ip_forward
for side in client server; do
	ip netns add $side
	ip link add to$side type veth peer name eth0 netns $side
	ip link set to$side up
	ip -n $side link set eth0 up
	ip -n $side link set lo up
done
ip addr add 10.9.3.1/24 dev toclient
ip addr add 10.9.2.1/24 dev toserver
ip addr add 10.9.0.10/32 dev lo
ip -n client addr add 10.9.3.2/24 dev eth0
ip -n client route add default via 10.9.3.1
for last in 11 12; do ip -n server addr add 10.9.2.$last/24 dev eth0; done
ip -n server route add default via 10.9.2.1
ipvsadm -A -t 10.9.0.77:7 -s rr # an operator's own
ip netns exec server /usr/bin/python3 /mnt/share/traffic.py serve &
until ip netns exec server ss -Hltn sport = 80 | grep -q .; do sleep 0.2; done
cp /mnt/share/takeover.conf /tmp/t.conf
ours=("$@")
theirs=(/usr/sbin/keepalived)

# begin NAME: start theirs or ours with -I; it is at work when it says so
begin() {
	declare -n program=$1
	"${program[@]}" -C -I -f /tmp/t.conf -n -l -p /tmp/t.pid -c /tmp/tc.pid > /tmp/t.log 2>&1 &
	running=$!
	until grep -q "Startup complete" /tmp/t.log; do sleep 0.2; done
	cat /tmp/t.log >> $out/log
}

# become NAME: another program is at work, and the client has been answered by then and after
become() {
	wait $running
	step=$((step + 1))
	ipvsadm -Sn > $out/$step.before
	begin $1
	more 20
	ipvsadm -Sn > $out/$step.after
}

# more N: wait until so many new connections were answered from now on
more() {
	read have _ < /tmp/counts
	until read now _ < /tmp/counts && [ $now -ge $((have + $1)) ]; do sleep 0.2; done
}

stop() { kill -TERM "$(cat /tmp/t.pid)"; }
crash() { kill -KILL "$(cat /tmp/t.pid)" "$(cat /tmp/tc.pid)"; }

step=0
begin theirs
ip netns exec client /usr/bin/python3 /mnt/share/traffic.py ask 10.9.0.10 /tmp/counts &
until [ -e /tmp/counts ]; do sleep 0.2; done
more 5
ipvsadm -Sn > $out/0.after
stop; become ours
stop; become theirs
crash; become ours
crash; become theirs
cp /tmp/counts $out/counts
