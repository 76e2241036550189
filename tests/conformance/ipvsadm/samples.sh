# Run in the guest by record.py: listings of live connections and of counters of every size.
# Everything is local to the guest: the client, the director and the real servers.
set -u
sample() { local name=$1; shift; "$@" > sample.$name.stdout 2> sample.$name.stderr; }

ip address add 10.0.0.1/32 dev lo
ip address add 10.0.0.2/32 dev lo
ip -6 address add fd00::1/128 dev lo nodad
ip -6 address add fd00::2/128 dev lo nodad
ipvsadm -C
modprobe ip_vs_pe_sip
ipvsadm -A -t 10.0.0.1:80 -s rr
ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.2:8080 -m
ipvsadm -A -t 10.0.0.1:81 -s rr -p 300 -M 255.255.255.0
ipvsadm -a -t 10.0.0.1:81 -r 10.0.0.2:8080 -m
ipvsadm -A -u 10.0.0.1:53 -s rr
ipvsadm -a -u 10.0.0.1:53 -r 10.0.0.2:53 -m
ipvsadm -A -u 10.0.0.1:5060 -s rr -p 300 --pe sip
ipvsadm -a -u 10.0.0.1:5060 -r 10.0.0.2:5060 -m
ipvsadm -A -t [fd00::1]:80 -s rr
ipvsadm -a -t [fd00::1]:80 -r [fd00::2]:8080 -m

busybox nc -ll -p 8080 -e /bin/cat & server=$!
sleep 1
exec 3<> /dev/tcp/10.0.0.1/80 4<> /dev/tcp/10.0.0.1/81
echo hello >&3; read -r line <&3
echo x > /dev/udp/10.0.0.1/53
printf 'OPTIONS sip:x SIP/2.0\r\nCall-ID: abc@example\r\n\r\n' > message
cat message > /dev/udp/10.0.0.1/5060  # in one datagram
(exec 5<> /dev/tcp/fd00::1/80) 2> /dev/null

# Seconds pass while programs start: take the listings again until none did meanwhile.
for attempt in $(seq 200); do
  cat /proc/net/ip_vs_conn > before
  sample connections ipvsadm -Lnc
  sample connections-names ipvsadm -Lc
  sample connections-persistent ipvsadm -Lnc --persistent-conn
  cat /proc/net/ip_vs_conn > after
  cmp -s before after && break
done
cmp before after > sample.settled.stdout
cp after sample.proc.stdout
sample services ipvsadm -Ln
exec 3>&- 4>&-
kill $server

# One service with one server, and counters as the shim says instead of the kernel.
ipvsadm -C
ipvsadm -A -t 10.0.0.1:80 -s rr
ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.2:8080 -m
export LD_PRELOAD=/mnt/share/counters.so
sample stats ipvsadm -Ln --stats
sample stats-exact ipvsadm -Ln --stats --exact
sample rate ipvsadm -Ln --rate
sample rate-exact ipvsadm -Ln --rate --exact
unset LD_PRELOAD
