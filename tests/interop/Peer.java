import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.Serializable;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;

import org.apache.catalina.tribes.ByteMessage;
import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ChannelListener;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.MembershipListener;
import org.apache.catalina.tribes.group.GroupChannel;
import org.apache.catalina.tribes.group.Response;
import org.apache.catalina.tribes.group.RpcCallback;
import org.apache.catalina.tribes.group.RpcChannel;
import org.apache.catalina.tribes.group.interceptors.DomainFilterInterceptor;
import org.apache.catalina.tribes.group.interceptors.EncryptInterceptor;
import org.apache.catalina.tribes.group.interceptors.FragmentationInterceptor;
import org.apache.catalina.tribes.group.interceptors.GzipInterceptor;
import org.apache.catalina.tribes.group.interceptors.MessageDispatchInterceptor;
import org.apache.catalina.tribes.group.interceptors.OrderInterceptor;
import org.apache.catalina.tribes.group.interceptors.StaticMembershipInterceptor;
import org.apache.catalina.tribes.group.interceptors.TcpFailureDetector;
import org.apache.catalina.tribes.group.interceptors.TcpPingInterceptor;
import org.apache.catalina.tribes.membership.McastService;
import org.apache.catalina.tribes.membership.StaticMember;
import org.apache.catalina.tribes.transport.nio.NioReceiver;

/**
 * A member of a Tribes group that does what the lines on its standard input say and prints what it
 * sees: the Java half of the tests beside it.
 *
 * A message is eight bytes with its number and then bytes that follow from the number; shorter ones
 * have no number. Those of a flood are counted; each of its senders has a million numbers.
 */
public final class Peer implements MembershipListener, ChannelListener, RpcCallback {
    private static final int FLOOD = 1_000_000;
    private final GroupChannel channel = new GroupChannel();
    private final AtomicLong counted = new AtomicLong();
    private final AtomicLong damaged = new AtomicLong();
    private final AtomicLong disordered = new AtomicLong();
    private final Map<Long, Long> lastOfSender = new ConcurrentHashMap<>();
    private RpcChannel rpc;

    public static void main(String[] args) throws Exception {
        new Peer().run(args);
        System.exit(0);
    }

    private static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    private void run(String[] args) throws Exception {
        McastService multicast = (McastService) channel.getMembershipService();
        multicast.setAddress("228.0.0.4");
        multicast.setBind("127.0.0.1");
        multicast.setTtl(0);
        multicast.setFrequency(500);
        multicast.setDropTime(3000);
        NioReceiver receiver = (NioReceiver) channel.getChannelReceiver();
        receiver.setAddress("127.0.0.1");
        int start = Channel.DEFAULT;
        StaticMembershipInterceptor fixed = new StaticMembershipInterceptor();
        String stack = "";
        for (int i = 0; i < args.length; i += 2) {
            String value = args[i + 1];
            switch (args[i]) {
                case "--name" -> multicast.setPayload(value.getBytes("UTF-8"));
                case "--domain" -> multicast.setDomain(value);
                case "--multicast-port" -> multicast.setPort(Integer.parseInt(value));
                case "--port" -> receiver.setPort(Integer.parseInt(value));
                case "--udp-port" -> receiver.setUdpPort(Integer.parseInt(value));
                case "--stack" -> stack = value;
                case "--static" -> {
                    String[] parts = value.split(":");
                    StaticMember member =
                            new StaticMember(parts[0], Integer.parseInt(parts[1]), 0);
                    member.setUniqueId(parts[2]);
                    fixed.addStaticMember(member);
                    start = Channel.SND_RX_SEQ | Channel.SND_TX_SEQ;
                }
                case "--local-id" -> {
                    StaticMember local =
                            new StaticMember(receiver.getAddress(), receiver.getPort(), 0);
                    local.setUniqueId(value);
                    fixed.setLocalMember(local);
                }
                default -> throw new IllegalArgumentException(args[i]);
            }
        }
        for (String name : stack.isEmpty() ? new String[0] : stack.split(",")) {
            add(name);
        }
        if (start != Channel.DEFAULT) {
            // Without heartbeats nothing else would notice an end before the next message fails.
            TcpPingInterceptor ping = new TcpPingInterceptor();
            ping.setUseThread(true);
            ping.setInterval(1000);
            channel.addInterceptor(ping);
        }
        channel.addInterceptor(new TcpFailureDetector());
        channel.addInterceptor(new MessageDispatchInterceptor());
        if (start != Channel.DEFAULT) {
            channel.addInterceptor(fixed);
        }
        channel.addMembershipListener(this);
        channel.addChannelListener(this);
        rpc = new RpcChannel("rpc".getBytes("UTF-8"), channel, this);
        channel.start(start);
        say("STARTED " + receiver.getPort());
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            command(line.trim().split(" "), start);
        }
    }

    private void add(String name) {
        String[] parts = name.split("=");
        switch (parts[0]) {
            case "gzip" -> channel.addInterceptor(new GzipInterceptor());
            case "domain" -> {
                DomainFilterInterceptor filter = new DomainFilterInterceptor();
                filter.setDomain(parts[1]);
                channel.addInterceptor(filter);
            }
            case "order" -> channel.addInterceptor(new OrderInterceptor());
            case "fragment" -> {
                FragmentationInterceptor fragment = new FragmentationInterceptor();
                fragment.setMaxSize(Integer.parseInt(parts[1]));
                channel.addInterceptor(fragment);
            }
            case "encrypt" -> {
                EncryptInterceptor encrypt = new EncryptInterceptor();
                encrypt.setEncryptionAlgorithm(parts[1]);
                encrypt.setEncryptionKey("000102030405060708090a0b0c0d0e0f");
                channel.addInterceptor(encrypt);
            }
            default -> throw new IllegalArgumentException(name);
        }
    }

    private void command(String[] words, int start) throws Exception {
        switch (words[0]) {
            case "send" -> send(Long.parseLong(words[1]), Integer.parseInt(words[2]),
                    Integer.parseInt(words[3]));
            case "flood" -> flood(Integer.parseInt(words[1]), Integer.parseInt(words[2]),
                    Integer.parseInt(words[3]), Integer.parseInt(words[4]));
            case "rpc" -> ask(Long.parseLong(words[1]), Integer.parseInt(words[2]),
                    Integer.parseInt(words[3]));
            case "members" -> members();
            case "counts" -> {
                for (int i = 0; i < 600 && counted.get() < Long.parseLong(words[1]); i++) {
                    Thread.sleep(100);
                }
                say("COUNTS " + counted + " " + damaged);
            }
            case "order" -> say("DISORDERED " + disordered);
            case "stop" -> {
                channel.stop(start);
                say("STOPPED");
            }
            default -> throw new IllegalArgumentException(words[0]);
        }
    }

    private static byte[] content(long number, int size) {
        byte[] data = new byte[size];
        for (int i = 0; i < size; i++) {
            data[i] = (byte) (size >= 8 && i < 8 ? number >>> (56 - 8 * i) : number * 31 + i);
        }
        return data;
    }

    private static long number(byte[] data) {
        long number = 0;
        for (int i = 0; i < 8 && data.length >= 8; i++) {
            number = number << 8 | data[i] & 0xff;
        }
        return number;
    }

    private static boolean isWhole(byte[] data) {
        long number = number(data);
        for (int i = 8; i < data.length; i++) {
            if (data[i] != (byte) (number * 31 + i)) {
                return false;
            }
        }
        return true;
    }

    private void send(long number, int size, int options) {
        try {
            channel.send(channel.getMembers(), new ByteMessage(content(number, size)), options);
            say("SENT " + number);
        } catch (ChannelException error) {
            StringBuilder faulty = new StringBuilder();
            for (ChannelException.FaultyMember member : error.getFaultyMembers()) {
                faulty.append(' ').append(text(member.getMember().getPayload())).append(':')
                        .append(member.getCause().getClass().getSimpleName());
            }
            say("FAILED " + number + faulty);
        }
    }

    private void flood(int count, int senders, int options, int size) throws Exception {
        AtomicLong failed = new AtomicLong();
        List<Thread> threads = new ArrayList<>();
        for (int sender = 0; sender < senders; sender++) {
            long first = (long) FLOOD * (sender + 1);
            Thread thread = new Thread(() -> {
                for (long number = first; number < first + count / senders; number++) {
                    try {
                        channel.send(channel.getMembers(), new ByteMessage(content(number, size)),
                                options);
                    } catch (ChannelException error) {
                        failed.incrementAndGet();
                    }
                }
            });
            threads.add(thread);
            thread.start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        say("FLOODED " + failed);
    }

    private void ask(long number, int size, int type) {
        long begin = System.nanoTime();
        StringBuilder answers = new StringBuilder();
        try {
            Response[] all = rpc.send(channel.getMembers(), new ByteMessage(content(number, size)),
                    type, 0, 3000);
            for (Response answer : all) {
                byte[] data = ((ByteMessage) answer.getMessage()).getMessage();
                answers.append(' ').append(text(answer.getSource().getPayload())).append(':')
                        .append(number(data)).append(':').append(isWhole(data));
            }
        } catch (ChannelException error) {
            answers.append(" error");
        }
        say("ANSWERS " + number + " " + (System.nanoTime() - begin) / 1_000_000 + answers);
    }

    private void members() {
        StringBuilder line = new StringBuilder("MEMBERS");
        for (Member member : channel.getMembers()) {
            line.append(' ').append(text(member.getPayload())).append('@')
                    .append(text(member.getDomain()));
        }
        say(line.toString());
    }

    private static String text(byte[] data) {
        return data == null ? "" : new String(data);
    }

    @Override
    public void memberAdded(Member member) {
        say("ADDED " + text(member.getPayload()) + "@" + text(member.getDomain()));
    }

    @Override
    public void memberDisappeared(Member member) {
        boolean isLeave = java.util.Arrays.equals(member.getCommand(), Member.SHUTDOWN_PAYLOAD);
        say((isLeave ? "LEFT " : "GONE ") + text(member.getPayload()));
    }

    @Override
    public boolean accept(Serializable message, Member sender) {
        return message instanceof ByteMessage;
    }

    @Override
    public void messageReceived(Serializable message, Member sender) {
        byte[] data = ((ByteMessage) message).getMessage();
        long number = number(data);
        boolean isWhole = isWhole(data);
        if (number >= FLOOD) {
            Long last = lastOfSender.put(number / FLOOD, number);
            if (last != null && last >= number) {
                disordered.incrementAndGet();
            }
            counted.incrementAndGet();
            if (!isWhole) {
                damaged.incrementAndGet();
            }
            return;
        }
        say("GOT " + number + " " + data.length + " " + isWhole + " " + text(sender.getPayload()));
        if (number == 13) {
            throw new IllegalStateException("as the test wants it");
        }
    }

    @Override
    public Serializable replyRequest(Serializable message, Member sender) {
        byte[] data = ((ByteMessage) message).getMessage();
        return new ByteMessage(content(number(data) + 1, data.length));
    }

    @Override
    public void leftOver(Serializable message, Member sender) {
        say("LATE " + text(sender.getPayload()));
    }
}
