import java.io.BufferedReader;
import java.io.InputStreamReader;

import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.MembershipListener;
import org.apache.catalina.tribes.group.GroupChannel;
import org.apache.catalina.tribes.group.interceptors.MessageDispatchInterceptor;
import org.apache.catalina.tribes.group.interceptors.TcpFailureDetector;
import org.apache.catalina.tribes.membership.StaticMember;
import org.apache.catalina.tribes.membership.StaticMembershipService;
import org.apache.catalina.tribes.transport.nio.NioReceiver;

/** A member whose members are configured: it tells who comes and who goes. */
public final class StaticPeer implements MembershipListener {
    private static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    public static void main(String[] args) throws Exception {
        GroupChannel channel = new GroupChannel();
        channel.setName("test-Channel");
        channel.setHeartbeatSleeptime(500);
        StaticMembershipService service = new StaticMembershipService();
        service.setExpirationTime(3000);
        service.setRpcTimeout(1000);
        NioReceiver receiver = (NioReceiver) channel.getChannelReceiver();
        receiver.setAddress("127.0.0.1");
        for (int i = 0; i < args.length; i += 2) {
            String value = args[i + 1];
            switch (args[i]) {
                case "--name", "--multicast-port" -> { }
                case "--port" -> {
                    receiver.setPort(Integer.parseInt(value));
                    StaticMember local = member(value, 1);
                    service.setLocalMember(local);
                }
                case "--member" -> service.addStaticMember(member(value, 2));
                default -> throw new IllegalArgumentException(args[i]);
            }
        }
        channel.setMembershipService(service);
        channel.addInterceptor(new TcpFailureDetector());
        channel.addInterceptor(new MessageDispatchInterceptor());
        channel.addMembershipListener(new StaticPeer());
        channel.start(Channel.DEFAULT);
        say("STARTED " + receiver.getPort());
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            if (line.equals("stop")) {
                channel.stop(Channel.DEFAULT);
                say("STOPPED");
            }
        }
        System.exit(0);
    }

    private static StaticMember member(String port, int id) throws Exception {
        StaticMember member = new StaticMember("127.0.0.1", Integer.parseInt(port), 0);
        member.setUniqueId("{0,0,0,0,0,0,0,0,0,0,0,0,0,0,0," + id + "}");
        return member;
    }

    @Override
    public void memberAdded(Member member) {
        say("ADDED " + member.getPort());
    }

    @Override
    public void memberDisappeared(Member member) {
        say("GONE " + member.getPort());
    }
}
