import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.nio.file.Files;

import org.apache.catalina.Context;
import org.apache.catalina.Manager;
import org.apache.catalina.Session;
import org.apache.catalina.ha.ClusterManager;
import org.apache.catalina.ha.ClusterMessage;
import org.apache.catalina.ha.ClusterRuleSet;
import org.apache.catalina.ha.session.BackupManager;
import org.apache.catalina.ha.session.DeltaManager;
import org.apache.catalina.ha.tcp.SimpleTcpCluster;
import org.apache.catalina.startup.Tomcat;
import org.apache.catalina.tribes.group.GroupChannel;
import org.apache.catalina.tribes.membership.McastService;
import org.apache.catalina.tribes.transport.nio.NioReceiver;
import org.apache.tomcat.util.digester.Digester;

/** A whole Tomcat with one clustered application, told what to do on standard input. */
public final class TomcatNode {
    private static void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    public static void main(String[] args) throws Exception {
        if (args[0].equals("--cluster")) {
            run(read(new File(args[1])));
        } else {
            run(configured(args));
        }
    }

    /** A Cluster element as it stands in server.xml. */
    private static SimpleTcpCluster read(File file) throws Exception {
        Digester digester = new Digester();
        digester.addObjectCreate("Cluster", "", "className");
        digester.addSetProperties("Cluster");
        digester.addRuleSet(new ClusterRuleSet("Cluster/"));
        return (SimpleTcpCluster) digester.parse(file);
    }

    private static SimpleTcpCluster configured(String[] args) throws Exception {
        SimpleTcpCluster cluster = new SimpleTcpCluster();
        GroupChannel channel = (GroupChannel) cluster.getChannel();
        McastService multicast = (McastService) channel.getMembershipService();
        multicast.setAddress("228.0.0.4");
        multicast.setBind("127.0.0.1");
        multicast.setTtl(0);
        NioReceiver receiver = (NioReceiver) channel.getChannelReceiver();
        receiver.setAddress("127.0.0.1");
        ClusterManager template = new DeltaManager();
        for (int i = 0; i < args.length; i += 2) {
            String value = args[i + 1];
            switch (args[i]) {
                case "--name" -> multicast.setPayload(value.getBytes("UTF-8"));
                case "--multicast-port" -> multicast.setPort(Integer.parseInt(value));
                case "--port" -> receiver.setPort(Integer.parseInt(value));
                case "--manager" -> template = manager(value);
                default -> throw new IllegalArgumentException(args[i]);
            }
        }
        cluster.setManagerTemplate(template);
        return cluster;
    }

    private static void run(SimpleTcpCluster cluster) throws Exception {
        File base = Files.createTempDirectory("tomcat").toFile();
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(base.getPath());
        tomcat.setPort(0);
        tomcat.getConnector().setProperty("address", "127.0.0.1");
        tomcat.getEngine().setCluster(cluster);
        Context context = tomcat.addContext("/app", base.getPath());
        context.setDistributable(true);
        long begin = System.nanoTime();
        tomcat.start();
        say("STARTED " + (System.nanoTime() - begin) / 1_000_000);
        Manager manager = context.getManager();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.trim().split(" ");
            switch (words[0]) {
                case "create" -> {
                    long start = System.nanoTime();
                    int count = Integer.parseInt(words[1]);
                    for (int i = 0; i < count; i++) {
                        create(cluster, manager, i);
                    }
                    say("CREATED " + (System.nanoTime() - start) / 1_000_000);
                }
                case "sessions" -> say("SESSIONS " + whole(manager));
                case "members" -> say("MEMBERS " + cluster.getMembers().length);
                case "stop" -> {
                    tomcat.stop();
                    say("STOPPED");
                }
                default -> throw new IllegalArgumentException(words[0]);
            }
        }
        System.exit(0);
    }

    private static ClusterManager manager(String kind) {
        return switch (kind) {
            case "delta" -> new DeltaManager();
            case "backup" -> new BackupManager();
            default -> throw new IllegalArgumentException(kind);
        };
    }

    private static void create(SimpleTcpCluster cluster, Manager manager, int number) {
        Session session = manager.createSession(null);
        session.access();
        session.getSession().setAttribute("number", "value " + number);
        ClusterMessage message = ((ClusterManager) manager).requestCompleted(session.getId());
        if (message != null) {
            cluster.send(message);
        }
        session.endAccess();
    }

    private static int whole(Manager manager) {
        int count = 0;
        for (Session session : manager.findSessions()) {
            Object value = session.getSession().getAttribute("number");
            if (value != null && value.toString().startsWith("value ")) {
                count++;
            }
        }
        return count;
    }
}
