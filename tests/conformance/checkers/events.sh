#!/bin/bash
# Events for a keepalived in the guest: events.sh PROGRAM [ARGUMENT]...
# After each, /mnt/share/got has what ipvsadm lists and which scripts were called. Where
# /mnt/share/expected is, it waits until they are as there; else some seconds.
share=/mnt/share
mkdir -p $share/got
cat > /tmp/note.sh <<'END'
#!/bin/sh
echo "$*" >> /tmp/notes
END
cat > /tmp/exit.sh <<'END'
#!/bin/sh
: > /tmp/asked$1
read code < /tmp/exit$1
exit $code
END
chmod 755 /tmp/note.sh /tmp/exit.sh
ip link set lo up
ip netns add peer
ip link add d0 type veth peer name d1 netns peer
ip link add t0 type dummy
ip addr add 10.9.0.254/24 dev d0
ip link set d0 up
ip link set t0 up
ip -n peer addr add 10.9.0.253/24 dev d1
ip -n peer link set d1 up
ip -n peer link set lo up
modprobe ip_vs
ipvsadm -A -t 10.9.0.77:7 -s rr

look() {
	{ ipvsadm -Ln; ipvsadm -Sn; ipvsadm -Ln --thresholds; ipvsadm -L --daemon; } > $share/got/$step.listing
	sort /tmp/notes > $share/got/$step.scripts
}

same() {
	cmp -s $share/expected/$step.listing $share/got/$step.listing &&
		cmp -s $share/expected/$step.scripts $share/got/$step.scripts
}

# settle [SECONDS]: the next step; while nothing is expected yet it takes so long
settle() {
	step=$((step + 1))
	if [ -e $share/expected ]; then
		local until=$((SECONDS + patience))
		while look; ! same; do
			# Something is not as it should be: what follows is looked at, and no more waited for.
			if [ $SECONDS -ge $until ]; then
				patience=5
				break
			fi
			sleep 0.2
		done
	else
		sleep ${1:-$calm}
		look
	fi
	: > /tmp/notes
}

reload() {
	kill -HUP "$(cat /tmp/k.pid)"
	settle
}

# begin FILE [OPTION]...: the program with this file
begin() {
	cp $share/$1 /tmp/k.conf
	: > /tmp/notes
	"${program[@]}" -f /tmp/k.conf -n -l -p /tmp/k.pid -c /tmp/c.pid -r /tmp/v.pid "${@:2}" \
		>> $share/got/log 2>&1 &
	daemon=$!
	settle 12
}

finish() {
	kill -TERM "$(cat /tmp/k.pid)"
	wait $daemon
	settle
}

say() { echo $2 > /tmp/web/$1; }

program=("$@")

# -- files alone decide who is up ----------------------------------------------------
step=10 calm=2 patience=200
for file in bad11 bad12 bad21 bad22; do echo 0 > /tmp/$file; done
echo 1 > /tmp/bad11
begin keepalived.conf -C # 11 is down from the beginning, and begins as down (alpha)
echo 0 > /tmp/bad11; settle
echo 1 > /tmp/bad12; settle # inhibit_on_failure; quorum is lost, the sorry server serves
echo 0 > /tmp/bad12; settle
echo 1 > /tmp/bad21; settle # a server of two virtual servers
echo 1 > /tmp/bad22; settle
echo 0 > /tmp/bad21; settle
sed -i 's/weight 3/weight 4/; s/lb_algo wlc/lb_algo rr/' /tmp/k.conf; reload
sed -i '/10.9.0.5 80/,$d' /tmp/k.conf; reload
cp $share/keepalived.conf /tmp/k.conf; reload
sed -i 's/10.9.0.52/10.9.0.53/' /tmp/k.conf; reload
sed -i 's/quorum 2/quorum 3/; s/persistence_timeout 60/persistence_timeout 90/' /tmp/k.conf; reload
finish

# -- real checks, every kind of service, and VRRP -------------------------------------
step=30 calm=7
mkdir /tmp/web
for last in 11 12 13 21; do ip addr add 10.9.1.$last/32 dev lo; say 10.9.1.$last 200; done
ip addr add fd00:1::31/128 dev lo nodad
say fd00:1::31 200
for file in exit41 exit61 exit71 w51 w52 w53 w54; do echo 0 > /tmp/$file; done
/usr/bin/python3 $share/servers.py 10.9.1.11 10.9.1.12 10.9.1.13 10.9.1.21 fd00:1::31 &
servers=$!
until [ "$(ss -Hltn sport = 80 | wc -l)" = 5 ]; do sleep 0.2; done
begin more.conf # VRRP's instance becomes master, and what ha_suspend rests on its VIP wakes
# 41 gets weight 9 - 2; of the files' services 1 is left, less than quorum - hysteresis
say 10.9.1.11 500; echo 9 > /tmp/exit41; for file in w51 w52 w53; do echo -254 > /tmp/$file; done; settle
# 12 is inhibited; 2 of the files' services are not yet quorum + hysteresis
say 10.9.1.12 off; echo 1 > /tmp/exit41; echo 0 > /tmp/w51
until grep -q "down 12" /tmp/notes; do sleep 0.2; done
say 10.9.1.11 200; settle
# The sorry server was there at weight 0; the files' 3 + 1 are enough; one of a group's goes from all its services
say 10.9.1.11 hang; say 10.9.1.21 off; say fd00:1::31 off; echo 14 > /tmp/exit41
echo 2 > /tmp/w51; echo 1 > /tmp/exit71; settle 15
# The files' 2 are still not less than 3 - 1
for last in 11 12 21; do say 10.9.1.$last 200; done
say fd00:1::31 200; echo 0 > /tmp/w51; echo 0 > /tmp/exit71; settle
# Another director is master: the backup daemon
echo 0 > /tmp/w52; echo 0 > /tmp/w53
sed 's/d0$/d1/; s/priority 100/priority 200/; /track_interface/,/}/d; /^virtual_server/,$d; s/.*lvs_sync.*//' \
	$share/more.conf | grep -v ^track_file > /tmp/peer.conf
ip netns exec peer /usr/sbin/keepalived -P -n -l -f /tmp/peer.conf -p /tmp/peer.pid -r /tmp/peerv.pid \
	> /tmp/peer.log 2>&1 &
peer=$!
until ! ip addr show d0 | grep -q 10.9.0.9/; do sleep 0.2; done
settle
# ha_suspend: nobody asks
for _ in $(seq 60); do
	[ $(($(date +%s) - $(stat -c %Y /tmp/asked61))) -lt 6 ] || break
	sleep 1
done
echo 1 > /tmp/exit61; settle
kill -TERM $peer; wait $peer; settle # master again, and asking
echo 0 > /tmp/exit61; settle
ip link set t0 down; settle # FAULT
ip link set t0 up; say 10.9.1.12 off; settle
sed -i '/real_server 10.9.1.12 80/i real_server 10.9.1.13 80 {\nweight 9\nTCP_CHECK {\n }\n}' /tmp/k.conf
sed -i 's/weight 3$/weight 30/; s/weight 2$/weight 20/' /tmp/k.conf; reload
say 10.9.1.12 200; settle
sed -i '/real_server 10.9.1.13/,/^}/d; s/lb_algo mh/lb_algo sed/; /mh-/d; /persistence_engine/d' /tmp/k.conf
sed -i 's/y 64/y 48/; s/255.255.255.0/255.255.0.0/; /10.9.0.41 80/d' /tmp/k.conf; reload
sed -i 's/gre csum/gre/; s/port 6080/port 6081/; s/VI_1 id 9/VI_1 id 10/' /tmp/k.conf
sed -i '/virtual_server 10.9.0.12 9/,/^}/d; s/sorry_server 10.9.0.97/sorry_server 10.9.0.95/' /tmp/k.conf; reload
sed -i 's/VI_1 id 10/id 10/; /persistence_timeout/d; /persistence_granularity/d' /tmp/k.conf; reload # both daemons
cp $share/more.conf /tmp/k.conf; reload
finish
kill $servers
