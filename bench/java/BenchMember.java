import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.logging.Level;
import java.util.logging.Logger;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

import org.apache.catalina.Context;
import org.apache.catalina.Lifecycle;
import org.apache.catalina.Session;
import org.apache.catalina.ha.ClusterManager;
import org.apache.catalina.ha.ClusterMessage;
import org.apache.catalina.ha.session.BackupManager;
import org.apache.catalina.ha.session.DeltaManager;
import org.apache.catalina.ha.tcp.SimpleTcpCluster;
import org.apache.catalina.startup.Tomcat;
import org.apache.catalina.tribes.ByteMessage;
import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ChannelListener;
import org.apache.catalina.tribes.ChannelMessage;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.MembershipListener;
import org.apache.catalina.tribes.group.ChannelInterceptorBase;
import org.apache.catalina.tribes.group.GroupChannel;
import org.apache.catalina.tribes.group.InterceptorPayload;
import org.apache.catalina.tribes.group.interceptors.EncryptInterceptor;
import org.apache.catalina.tribes.group.interceptors.GzipInterceptor;
import org.apache.catalina.tribes.group.interceptors.MessageDispatchInterceptor;
import org.apache.catalina.tribes.group.interceptors.TcpFailureDetector;
import org.apache.catalina.tribes.io.ChannelData;
import org.apache.catalina.tribes.io.XByteBuffer;
import org.apache.catalina.tribes.membership.McastService;
import org.apache.catalina.tribes.transport.Constants;
import org.apache.catalina.tribes.transport.nio.NioReceiver;

/**
 * A member of a Tribes group with, if wanted, a Tomcat and a clustered application: what ours is
 * compared with. A line on standard input says what to do, a line of JSON says what came of it; the
 * commands and answers are those of member.py beside it, so that both sides do the same work.
 */
public final class BenchMember implements MembershipListener, ChannelListener {
    private static final String ATTRIBUTE = "a";
    private static final int MANY = 100;

    private GroupChannel channel = new GroupChannel();
    private SimpleTcpCluster cluster;
    private ClusterManager manager;
    private Tomcat tomcat;
    private final Heard heard = new Heard();
    private final Wire wire = new Wire();
    private final List<String> events = new ArrayList<>();
    private final List<String> ids = new ArrayList<>();
    private final Map<String, Long> finals = new ConcurrentHashMap<>();
    private long channelBegins;
    private long managerBegins;

    public static void main(String[] args) throws Exception {
        Logger.getLogger("").setLevel(Level.SEVERE);
        new BenchMember().run(args);
        System.exit(0);
    }

    // ---- its life ------------------------------------------------------------------------------

    private void run(String[] args) throws Exception {
        Map<String, String> settings = new HashMap<>();
        for (int i = 0; i < args.length; i += 2) {
            settings.put(args[i].substring(2), args[i + 1]);
        }
        String kind = settings.getOrDefault("manager", "none");
        if (!kind.equals("none")) {
            cluster = new SimpleTcpCluster();
            channel = (GroupChannel) cluster.getChannel();
        }
        configure(settings);
        int options = Integer.parseInt(settings.getOrDefault("options", "6"));
        if (cluster == null) {
            channelBegins = System.nanoTime();
            channel.start(Channel.DEFAULT);
        } else {
            startTomcat(kind, options, settings.get("folder"));
        }
        long now = System.nanoTime();
        say(String.format("{\"started\": true, \"seconds\": %f, \"transfer\": %f}",
            (now - channelBegins) / 1e9, (now - managerBegins) / 1e9));
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.trim().split(" ", 2);
            String[] rest = words.length > 1 ? words[1].split(" ") : new String[0];
            if (words[0].equals("stop")) {
                stop();
                say("{}");
                return;
            }
            say(words[0].equals("settle") ? settle(words[1]) : perform(words[0], rest));
        }
    }

    private void configure(Map<String, String> settings) throws Exception {
        McastService multicast = (McastService) channel.getMembershipService();
        multicast.setAddress("228.0.0.4");
        multicast.setBind("127.0.0.1");
        multicast.setTtl(0);
        multicast.setPort(Integer.parseInt(settings.get("group")));
        multicast.setFrequency(500);
        multicast.setDropTime(3000);
        multicast.setPayload(settings.get("name").getBytes("UTF-8"));
        NioReceiver receiver = (NioReceiver) channel.getChannelReceiver();
        receiver.setAddress("127.0.0.1");
        receiver.setPort(Integer.parseInt(settings.getOrDefault("port", "4000")));
        receiver.setAutoBind(1000);
        // Beside the two that SimpleTcpCluster adds on its own; in order of sending.
        channel.addInterceptor(heard);
        String more = settings.getOrDefault("interceptors", "");
        if (more.contains("gzip")) {
            channel.addInterceptor(new GzipInterceptor());
        }
        if (more.contains("encrypt")) {
            EncryptInterceptor encrypt = new EncryptInterceptor();
            encrypt.setEncryptionKey("ab".repeat(32));
            if (more.contains("gcm")) {
                encrypt.setEncryptionAlgorithm("AES/GCM/NoPadding");
            }
            channel.addInterceptor(encrypt);
        }
        channel.addInterceptor(new MessageDispatchInterceptor());
        channel.addInterceptor(new TcpFailureDetector());
        channel.addInterceptor(wire);
        if (cluster == null) {
            channel.addChannelListener(this);
        }
        channel.addMembershipListener(this);
    }

    private void startTomcat(String kind, int options, String folder) throws Exception {
        cluster.setChannelSendOptions(options);
        if (kind.equals("backup")) {
            BackupManager template = new BackupManager();
            template.setMapSendOptions(options);
            cluster.setManagerTemplate(template);
        } else {
            cluster.setManagerTemplate(new DeltaManager());
        }
        File base = new File(folder);
        tomcat = new Tomcat();
        tomcat.setBaseDir(base.getPath());
        tomcat.setPort(0);
        tomcat.getConnector().setProperty("address", "127.0.0.1");
        tomcat.getEngine().setCluster(cluster);
        Context context = tomcat.addContext("/bench", base.getPath());
        context.setDistributable(true);
        context.setSessionTimeout(600);
        // What Tomcat does before has nothing to do with the group.
        cluster.addLifecycleListener(event -> {
            if (event.getType().equals(Lifecycle.BEFORE_START_EVENT)) {
                channelBegins = System.nanoTime();
            }
        });
        context.addLifecycleListener(event -> {
            if (event.getType().equals(Lifecycle.CONFIGURE_START_EVENT)) {
                managerBegins = System.nanoTime();
            }
        });
        tomcat.start();
        manager = (ClusterManager) context.getManager();
    }

    private void stop() throws Exception {
        if (tomcat != null) {
            tomcat.stop();
        } else {
            channel.stop(Channel.DEFAULT);
        }
    }

    // ---- what it is told -----------------------------------------------------------------------

    private String perform(String command, String[] words) throws Exception {
        return switch (command) {
            case "members" -> members();
            case "latency" ->
                latency(number(words[1]), number(words[2]), Double.parseDouble(words[3]));
            case "flood" ->
                flood(number(words[1]), number(words[2]), number(words[3]),
                    Double.parseDouble(words[4]));
            case "stream" ->
                stream(number(words[0]), number(words[1]), Double.parseDouble(words[2]));
            case "heard" -> heard.told();
            case "forget" -> heard.forget();
            case "sessions" -> sessions(number(words[0]), number(words[1]), number(words[2]));
            case "update" ->
                update(number(words[1]), number(words[2]), Double.parseDouble(words[3]));
            case "request" -> request(number(words[0]), number(words[1]));
            case "change" -> change();
            case "value" -> valueOf(words[0]);
            case "bytes" -> bytes(number(words[0]), number(words[1]));
            case "memory" -> memory();
            case "events" -> events();
            default -> throw new IllegalArgumentException(command);
        };
    }

    private String members() {
        int others = channel.getMembers().length;
        return String.format("{\"members\": %d, \"taking\": %d}", others, others);
    }

    private static int number(String word) {
        return Integer.parseInt(word);
    }

    private static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    /** Seconds since 1970, to compare with those of other processes on this machine. */
    private static double wall() {
        Instant now = Instant.now();
        return now.getEpochSecond() + now.getNano() / 1e9;
    }

    // ---- messages ------------------------------------------------------------------------------

    private byte[] message(int size, long sequence) {
        byte[] data = new byte[size];
        ByteBuffer.wrap(data).putLong(sequence);
        return data;
    }

    private void send(byte[] data, int options) throws ChannelException {
        channel.send(channel.getMembers(), new ByteMessage(data), options);
    }

    private String latency(int size, int options, double seconds) {
        long[] taken = new long[4_000_000];
        int count = 0;
        int errors = 0;
        long end = System.nanoTime() + (long) (seconds * 1e9);
        for (long now = System.nanoTime(); now < end && count < taken.length;) {
            try {
                send(message(size, -1), options);
            } catch (ChannelException e) {
                errors++;
            }
            long after = System.nanoTime();
            taken[count++] = after - now;
            now = after;
        }
        long[] sorted = Arrays.copyOf(taken, count);
        Arrays.sort(sorted);
        return String.format("{\"n\": %d, \"p50\": %f, \"p99\": %f, \"max\": %f, \"errors\": %d}",
            count, sorted[count / 2] / 1e3, sorted[(int) (count * 0.99)] / 1e3,
            sorted[count - 1] / 1e3, errors);
    }

    /** Acknowledged messages of several threads, each waiting for its own. */
    private String flood(int size, int options, int threads, double seconds) throws Exception {
        long begin = System.nanoTime();
        long end = begin + (long) (seconds * 1e9);
        AtomicLong count = new AtomicLong();
        inThreads(threads, index -> {
            long mine = 0;
            while (System.nanoTime() < end) {
                send(message(size, -1), options);
                mine++;
            }
            count.addAndGet(mine);
        });
        return String.format("{\"n\": %d, \"seconds\": %f}", count.get(),
            (System.nanoTime() - begin) / 1e9);
    }

    private String stream(int size, int options, double seconds) throws Exception {
        double began = wall();
        long end = System.nanoTime() + (long) (seconds * 1e9);
        long count = 0;
        while (System.nanoTime() < end) {
            send(message(size, count++), options);
        }
        return String.format("{\"n\": %d, \"began\": %f}", count, began);
    }

    private interface Work {
        void run(int index) throws Exception;
    }

    private static void inThreads(int threads, Work work) throws InterruptedException {
        List<Thread> all = new ArrayList<>();
        for (int i = 0; i < threads; i++) {
            int index = i;
            Thread thread = new Thread(() -> {
                try {
                    work.run(index);
                } catch (Exception e) {
                    e.printStackTrace();
                }
            });
            all.add(thread);
            thread.start();
        }
        for (Thread thread : all) {
            thread.join();
        }
    }

    // ---- sessions ------------------------------------------------------------------------------

    private static String value(int size, long sequence) {
        return "x".repeat(Math.max(0, size - 10)) + digits(sequence);
    }

    private static String digits(long sequence) {
        return Long.toString(10_000_000_000L + sequence).substring(1);
    }

    /** What Tomcat's ReplicationValve does around a request. */
    private void change(String id, String name, String value) throws Exception {
        Session session = manager.findSession(id);
        session.access();
        session.getSession().setAttribute(name, value);
        finish(session);
    }

    private void finish(Session session) {
        ClusterMessage message = manager.requestCompleted(session.getId());
        if (message != null) {
            cluster.send(message);
        }
        session.endAccess();
    }

    private String sessions(int count, int size, int attributes) throws Exception {
        for (int i = 0; i < count; i++) {
            Session session = manager.createSession(null);
            session.access();
            for (int a = 0; a < attributes; a++) {
                session.getSession().setAttribute(a == 0 ? ATTRIBUTE : ATTRIBUTE + a,
                    value(size / attributes, i));
            }
            finish(session);
            if (ids.size() < MANY) {
                ids.add(session.getIdInternal());
            }
        }
        return "{\"held\": " + manager.getActiveSessions() + "}";
    }

    private String update(int threads, int size, double seconds) throws Exception {
        double began = wall();
        long end = System.nanoTime() + (long) (seconds * 1e9);
        AtomicLong count = new AtomicLong();
        inThreads(threads, index -> {
            long mine = 0;
            for (int at = index; System.nanoTime() < end; at += threads) {
                String id = ids.get(at % ids.size());
                long sequence = finals.merge(id, 1L, Long::sum);
                change(id, ATTRIBUTE, value(size, sequence));
                mine++;
            }
            count.addAndGet(mine);
        });
        double ended = wall();
        StringBuilder last = new StringBuilder();
        finals.forEach((id, sequence) ->
            last.append(last.isEmpty() ? "" : ", ").append('"').append(id).append("\": ")
                .append(sequence));
        return String.format("{\"n\": %d, \"began\": %f, \"ended\": %f, \"finals\": {%s}}",
            count.get(), began, ended, last);
    }

    private String change() throws Exception {
        String id = ids.get(0);
        long sequence = finals.merge(id, 1L, Long::sum);
        change(id, ATTRIBUTE, value(100, sequence));
        return String.format("{\"id\": \"%s\", \"number\": %d, \"token\": \"-\"}", id, sequence);
    }

    private String valueOf(String id) throws Exception {
        Session session = manager.findSession(id);
        Object value = session == null ? null : session.getSession().getAttribute(ATTRIBUTE);
        String text = value == null ? "" : value.toString();
        long number = value == null ? -1 : Long.parseLong(text.substring(text.length() - 10));
        return "{\"number\": " + number + "}";
    }

    /** Time of one request's session work, each by itself, with a pause between. */
    private String request(int count, int size) throws Exception {
        long[] taken = new long[count];
        for (int i = 0; i < count; i++) {
            String id = ids.get(i % ids.size());
            String value = value(size, i);
            long begin = System.nanoTime();
            change(id, ATTRIBUTE, value);
            taken[i] = System.nanoTime() - begin;
            Thread.sleep(0, 200_000);
        }
        Arrays.sort(taken);
        return String.format("{\"n\": %d, \"p50\": %f, \"p99\": %f}", count, taken[count / 2] / 1e3,
            taken[(int) (count * 0.99)] / 1e3);
    }

    private String bytes(int batch, int size) throws Exception {
        wire.isCounting = true;
        wire.bytes.set(0);
        int rounds = 20;
        for (int i = 0; i < rounds * batch; i++) {
            change(ids.get(i % Math.min(batch, ids.size())), ATTRIBUTE, value(size, i));
        }
        Thread.sleep(300);
        wire.isCounting = false;
        return "{\"bytes\": " + wire.bytes.get() / (double) (rounds * batch) + "}";
    }

    private String memory() throws Exception {
        for (int i = 0; i < 3; i++) {
            System.gc();
            Thread.sleep(50);
        }
        Runtime runtime = Runtime.getRuntime();
        int held = manager == null ? 0 : manager.getActiveSessions();
        return String.format("{\"used\": %d, \"held\": %d}",
            runtime.totalMemory() - runtime.freeMemory(), held);
    }

    /** Wait until no more arrives; tell when the last one did, and which sessions are not current. */
    private String settle(String wanted) throws Exception {
        long before = -1;
        long limit = System.nanoTime() + 20_000_000_000L;
        while (heard.count.get() != before && System.nanoTime() < limit) {
            before = heard.count.get();
            Thread.sleep(250);
        }
        Matcher matcher = Pattern.compile("\"([^\"]+)\": (\\d+)").matcher(wanted);
        int stale = 0;
        while (matcher.find()) {
            Session session = manager.findSession(matcher.group(1));
            Object value = session == null ? null : session.getSession().getAttribute(ATTRIBUTE);
            String tail = digits(Long.parseLong(matcher.group(2)));
            if (value == null || !value.toString().endsWith(tail)) {
                stale++;
            }
        }
        return String.format("{\"last\": %f, \"stale\": %d, \"count\": %d}", heard.last, stale,
            heard.count.get());
    }

    // ---- what it sees --------------------------------------------------------------------------

    @Override
    public boolean accept(java.io.Serializable message, Member sender) {
        return true;
    }

    @Override
    public void messageReceived(java.io.Serializable message, Member sender) {
        byte[] data = ((ByteMessage) message).getMessage();
        if (data.length >= 8) {
            heard.note(ByteBuffer.wrap(data).getLong());
        }
    }

    @Override
    public void memberAdded(Member member) {
        note("added", member);
    }

    @Override
    public void memberDisappeared(Member member) {
        note("removed", member);
    }

    private void note(String what, Member member) {
        synchronized (events) {
            events.add(String.format("[%f, \"%s\", \"%s\"]", wall(), what,
                new String(member.getPayload())));
        }
    }

    private String events() {
        synchronized (events) {
            return "{\"events\": [" + String.join(", ", events) + "]}";
        }
    }

    /** Counts what has been processed here, and when the last one was. */
    private static final class Heard extends ChannelInterceptorBase {
        private final AtomicLong count = new AtomicLong();
        private volatile double last;
        private long highest = -1;
        private long inversions;

        @Override
        public void messageReceived(ChannelMessage message) {
            super.messageReceived(message);
            count.incrementAndGet();
            last = wall();
        }

        synchronized void note(long sequence) {
            if (sequence < 0) {
                return;
            }
            if (sequence < highest) {
                inversions++;
            }
            highest = Math.max(highest, sequence);
        }

        synchronized String told() {
            return String.format("{\"n\": %d, \"last\": %f, \"inversions\": %d}", count.get(), last,
                inversions);
        }

        synchronized String forget() {
            count.set(0);
            highest = -1;
            inversions = 0;
            return "{}";
        }
    }

    /** Counts bytes at the bottom of the chain, with the acknowledgement where one is asked for. */
    private static final class Wire extends ChannelInterceptorBase {
        private final AtomicLong bytes = new AtomicLong();
        private volatile boolean isCounting;

        @Override
        public void sendMessage(Member[] to, ChannelMessage message, InterceptorPayload payload)
                throws ChannelException {
            if (isCounting) {
                int size = XByteBuffer.createDataPackage((ChannelData) message).length;
                if ((message.getOptions() & Channel.SEND_OPTIONS_USE_ACK) != 0) {
                    size += Constants.ACK_COMMAND.length;
                }
                bytes.addAndGet((long) size * to.length);
            }
            super.sendMessage(to, message, payload);
        }
    }
}
