#!/bin/bash
# Events for a keepalived in the guest: events.sh PROGRAM [ARGUMENT]...
# After each, /mnt/share/got has what `ipvsadm -Ln` lists and which scripts were called. Where
# /mnt/share/expected has the same names, it waits until they are equal; else it waits some seconds.
share=/mnt/share
mkdir -p $share/got
cat > /tmp/note.sh <<'END'
#!/bin/sh
echo "$*" >> /tmp/notes
END
chmod 755 /tmp/note.sh
ip link set lo up
ip link add d0 type dummy && ip addr add 10.9.0.254/24 dev d0 && ip link set d0 up
modprobe ip_vs
ipvsadm -A -t 10.9.0.77:7 -s rr
step=10

look() {
	ipvsadm -Ln > $share/got/$step.listing
	sort /tmp/notes > $share/got/$step.scripts
}

settle() {
	step=$((step + 1))
	for _ in $(seq "${patience:-200}"); do
		sleep 0.3
		look
		[ -e $share/expected/$step.listing ] || continue
		cmp -s $share/expected/$step.listing $share/got/$step.listing &&
			cmp -s $share/expected/$step.scripts $share/got/$step.scripts && break
	done
	: > /tmp/notes
}

reload() {
	kill -HUP "$(cat /tmp/k.pid)"
	settle
}

cp $share/keepalived.conf /tmp/k.conf
: > /tmp/notes
for file in bad11 bad12 bad21 bad22; do echo 0 > /tmp/$file; done
echo 1 > /tmp/bad11
"$@" -f /tmp/k.conf -n -l -C -p /tmp/k.pid -c /tmp/c.pid > $share/got/log 2>&1 &
patience=$((${patience:-200} * 3)) settle # 11 is down from the beginning, and begins as down (alpha)
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
kill -TERM "$(cat /tmp/k.pid)"
wait
settle
