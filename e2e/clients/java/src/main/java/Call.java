import com.alibaba.cloudapi.sdk.client.ApacheHttpClient;
import com.alibaba.cloudapi.sdk.enums.HttpMethod;
import com.alibaba.cloudapi.sdk.enums.ParamPosition;
import com.alibaba.cloudapi.sdk.enums.Scheme;
import com.alibaba.cloudapi.sdk.model.ApiRequest;
import com.alibaba.cloudapi.sdk.model.ApiResponse;
import com.alibaba.cloudapi.sdk.model.HttpClientBuilderParams;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.PrintStream;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Runs the calls of a JSON file (standard input) with the official client and prints what came back. */
public class Call {
    /** The SDK's constructors are protected: this is how its own examples use it. */
    static final class Client extends ApacheHttpClient {
        Client(HttpClientBuilderParams params) {
            init(params);
        }
    }

    public static void main(String[] arguments) throws Exception {
        ObjectMapper mapper = new ObjectMapper();
        JsonNode job = mapper.readTree(System.in);
        HttpClientBuilderParams params = new HttpClientBuilderParams();
        params.setAppKey(job.get("key").asText());
        params.setAppSecret(job.get("secret").asText());
        params.setHost(job.get("base").asText().replace("http://", ""));
        params.setScheme(Scheme.HTTP);
        Client client = new Client(params);
        ArrayNode results = mapper.createArrayNode();
        for (JsonNode call : job.get("calls")) {
            results.add(answer(mapper, call.get("name").asText(), client.sendSyncRequest(request(mapper, call))));
        }
        new PrintStream(System.out, true, "UTF-8").println(mapper.writeValueAsString(results));
        System.exit(0);
    }

    static ApiRequest request(ObjectMapper mapper, JsonNode call) throws Exception {
        String path = call.get("path").asText();
        String method = call.get("method").asText();
        ApiRequest request;
        if (call.hasNonNull("form")) {
            request = new ApiRequest(method.equals("PUT") ? HttpMethod.PUT_FORM : HttpMethod.POST_FORM, path);
            parameters(request, call.get("form"), ParamPosition.BODY);
        } else if (call.hasNonNull("json")) {
            request = new ApiRequest(HttpMethod.POST_BODY, path, mapper.writeValueAsString(call.get("json")).getBytes("UTF-8"));
        } else if (call.hasNonNull("bytes")) {
            request = new ApiRequest(HttpMethod.POST_BODY, path, Base64.getDecoder().decode(call.get("bytes").asText()));
        } else {
            request = new ApiRequest(HttpMethod.valueOf(method), path);
        }
        if (call.hasNonNull("query")) {
            parameters(request, call.get("query"), ParamPosition.QUERY);
        }
        if (call.hasNonNull("headers")) {
            call.get("headers").fields().forEachRemaining(h -> request.addHeader(h.getKey(), h.getValue().asText()));
        }
        if (call.hasNonNull("signatureMethod")) {
            request.setSignatureMethod(call.get("signatureMethod").asText());
        }
        return request;
    }

    static void parameters(ApiRequest request, JsonNode pairs, ParamPosition position) {
        Map<String, List<String>> grouped = new LinkedHashMap<>();
        for (JsonNode pair : pairs) {
            grouped.computeIfAbsent(pair.get(0).asText(), n -> new ArrayList<>()).add(pair.get(1).asText());
        }
        grouped.forEach((name, values) -> request.addParam(name, values, position, true));
    }

    static ObjectNode answer(ObjectMapper mapper, String name, ApiResponse response) throws Exception {
        ObjectNode found = mapper.createObjectNode();
        found.put("name", name);
        found.put("status", response.getCode());
        ObjectNode headers = found.putObject("headers");
        if (response.getHeaders() != null) {
            response.getHeaders().forEach((n, v) -> headers.put(n.toLowerCase(), v.get(0)));
        }
        String text = response.getBody() == null ? "" : new String(response.getBody(), "UTF-8");
        found.put("body", response.getEx() == null ? text : String.valueOf(response.getEx()));
        return found;
    }
}
